//! What the commands in `scripts/` and the tests share.

pub mod cargo;
pub mod options;
pub mod platforms;
pub mod project;
