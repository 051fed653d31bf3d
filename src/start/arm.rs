use core::arch::naked_asm;

/// The kernel jumps here with the stack pointer at argc, a multiple of 8.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        "mov r0, sp", // the first argument of main
        "b {main}",   // which never returns
        main = sym crate::main,
    )
}
