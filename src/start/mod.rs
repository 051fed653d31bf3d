//! The entry point, `_start`: all that differs between architectures. A new one
//! is a new file here and a line below.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;
