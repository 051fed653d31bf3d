use core::arch::naked_asm;

/// The kernel jumps here with the stack pointer at argc, a multiple of 16.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        "mov rdi, rsp", // the first argument of main
        "call {main}",  // not jmp: the ABI wants a return address on the stack
        main = sym crate::main,
    )
}
