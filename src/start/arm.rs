use core::arch::naked_asm;

pub use linux_raw_sys::general::SA_RESTORER;

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
