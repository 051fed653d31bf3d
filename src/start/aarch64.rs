use core::arch::naked_asm;

/// The kernel jumps here with the stack pointer at argc, a multiple of 16.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        "mov x0, sp", // the first argument of main
        "b {main}",   // which never returns
        main = sym crate::main,
    )
}
