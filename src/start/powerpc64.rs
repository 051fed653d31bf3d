use core::arch::naked_asm;

/// The kernel jumps here with the stack pointer at argc, a multiple of 16, and with this
/// address in r12. From r2, the TOC pointer, main computes the addresses of its constants.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        "addis 2, 12, .TOC. - {start}@ha",
        "addi 2, 2, .TOC. - {start}@l",
        "mr 3, 1",        // the first argument of main
        "addi 1, 1, -32", // main saves registers above its stack pointer, where argc is
        "b {main}",       // which never returns
        main = sym crate::main,
        start = sym _start,
    )
}
