use core::arch::naked_asm;

/// The kernel jumps here with the stack pointer at argc, a multiple of 8.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        "lgr %r2, %r15",   // the first argument of main
        "aghi %r15, -160", // main saves registers above its stack pointer, where argc is
        "jg {main}",       // which never returns
        main = sym crate::main,
    )
}
