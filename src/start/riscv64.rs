use core::arch::naked_asm;

/// The kernel jumps here with the stack pointer at argc, a multiple of 16.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        "mv a0, sp", // the first argument of main
        "j {main}",  // which never returns; not `tail`, which reserves 4 bytes for a far one
        main = sym crate::main,
    )
}
