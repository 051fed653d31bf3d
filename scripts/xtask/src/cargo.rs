//! cargo for pause and for what is built as pause is, with a result that does not depend on the settings of the user;
//! and cargo for the programs in `tests/`.
//!
//! Only the environment variables in a list reach cargo. The config.toml in the user's cargo folder is reduced to the
//! tables that say how to reach a registry; those in folders above the project are not read. Variables such as
//! RUSTFLAGS or CARGO_PROFILE_RELEASE_OPT_LEVEL, and tables such as `[build]`, `[target]`, `[profile]` and `[env]`,
//! have no effect.

use std::fs;
use std::io::BufReader;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cargo_metadata::Message;
use toml::{Table, Value};

use crate::platforms::{ONLY, Platform, host, names, platforms};
use crate::project::{output, replace, root, say};

/// What the compiler that rust-toolchain.toml names prints of itself.
fn rustc_prints(what: &str) -> Result<PathBuf> {
    Ok(output(Command::new("rustc").args(["--print", what]).current_dir(root()))?.into())
}

/// A tool of that toolchain, such as rust-lld.
pub fn rust_tool(name: &str) -> Result<Command> {
    // For a host with musl the folder has another name than the target.
    let (sysroot, host) = (rustc_prints("sysroot")?, rustc_prints("host-tuple")?);
    let mut tool = Command::new(sysroot.join("lib/rustlib").join(host).join("bin").join(name));
    tool.env("LD_LIBRARY_PATH", sysroot.join("lib")); // where its libLLVM is
    Ok(tool)
}

/// Adds a target to that toolchain, if it is missing.
pub fn add_target(target: &str) -> Result<()> {
    if rustc_prints("sysroot")?.join("lib/rustlib").join(target).join("lib").is_dir() {
        return Ok(());
    }
    say(format!("adding Rust's target {target}"));
    output(Command::new("rustup").args(["target", "add", target]).current_dir(root())).map(drop)
}

/// cargo's variable for the linker of a target.
fn linker_variable(target: &str) -> String {
    format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"))
}

/// The environment variables that reach cargo, beside those of proxies in lower and upper case.
const VARIABLES: &str = "PATH HOME USER TMPDIR TERM LANG LC_ALL RUSTUP_HOME SSL_CERT_FILE \
    SSL_CERT_DIR CURL_CA_BUNDLE GIT_SSL_CAINFO SSH_AUTH_SOCK";
/// How those of cargo itself begin.
const OF_CARGO: &str = "HTTP_ NET_ REGISTRY_ REGISTRIES_ SOURCE_ CREDENTIAL_ALIAS_ TERM_";
const PROXIES: &str = "http_proxy https_proxy all_proxy no_proxy";

fn reaches_cargo(name: &str) -> bool {
    let is_one_of = |list: &str| list.split_whitespace().any(|one| one == name);
    let of_cargo = |rest: &str| OF_CARGO.split(' ').any(|start| rest.starts_with(start));
    is_one_of(VARIABLES)
        || is_one_of(PROXIES)
        || is_one_of(&PROXIES.to_uppercase())
        || name.strip_prefix("CARGO_").is_some_and(of_cargo)
}

/// Of a config.toml the tables that say how to reach a registry: mirrors, proxies, certificates.
fn registry_settings(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut table: Table = text.parse().with_context(|| file.display().to_string())?;
    table.retain(|name, _| ["source", "registry", "registries", "http", "net", "credential-alias"].contains(&name));
    Ok(table.to_string())
}

/// Makes a cargo folder with the user's downloads and passwords, and nothing else of the user's. Its path stays the
/// same, or cargo would build every dependency anew each time. Another run may use it meanwhile, so that what is in it
/// is replaced in one step.
fn cargo_home(user: &Path) -> Result<PathBuf> {
    let home = root().join("target/cargo-home");
    fs::create_dir_all(user.join("registry"))?;
    fs::create_dir_all(&home)?;
    let new = tempfile::tempdir_in(&home)?;
    let locks = [".package-cache", ".package-cache-mutate", ".global-cache"];
    for name in ["registry", "git", "credentials.toml"].into_iter().chain(locks) {
        symlink(user.join(name), new.path().join(name))?;
        fs::rename(new.path().join(name), home.join(name))?;
    }
    let config = user.join("config.toml");
    let settings = if config.exists() { registry_settings(&config)? } else { String::new() };
    replace(&home.join("config.toml"), 0o644, settings.as_bytes())?;
    Ok(home)
}

/// The cargo folder of the user.
fn user_home() -> Result<PathBuf> {
    let user = std::env::var_os("CARGO_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    match (user, std::env::var_os("HOME")) {
        (Some(user), _) => Ok(std::path::absolute(user)?),
        (None, Some(home)) => Ok(Path::new(&home).join(".cargo")),
        _ => bail!("neither CARGO_HOME nor HOME is set"),
    }
}

/// A command of cargo for pause and the programs of the tests, for one platform.
pub fn cargo(platform: &Platform, command: &str) -> Result<Command> {
    if Path::new("/.cargo/config.toml").exists() {
        bail!("/.cargo/config.toml would be read too: move it to a cargo folder that is not /.cargo");
    }
    let user = user_home()?;
    let home = cargo_home(&user)?;
    let bin = rustc_prints("sysroot")?.join("bin");
    let root = root();
    // No path of this machine is in the debug information, so that files with it are the same too.
    let remap = |from: &Path, to: &str| Value::from(format!("--remap-path-prefix={}={to}", from.display())).to_string();
    let remaps =
        [remap(root, "/pause"), remap(&home.join("registry"), "/registry"), remap(&user.join("registry"), "/registry")];
    let mut cargo = Command::new(bin.join(if command == "clippy" { "cargo-clippy" } else { "cargo" }));
    // From a folder in which cargo finds no other config.toml.
    cargo.current_dir("/").env_clear();
    cargo.envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(reaches_cargo)));
    cargo.env("CARGO_HOME", &home).env("CARGO", bin.join("cargo")).env("RUSTC", bin.join("rustc"));
    if platform.target != host().target {
        // The linker of the toolchain links every platform, by cargo's variable for it.
        cargo.env(linker_variable(platform.target), rust_tool("rust-lld")?.get_program());
    }
    cargo.arg(command).arg("--config").arg(root.join(".cargo/config.toml"));
    cargo.arg("--manifest-path").arg(root.join("Cargo.toml")).arg("--config");
    cargo.arg(format!("target.{}.rustflags=[{}]", platform.target, remaps.join(", ")));
    cargo.args(["--locked", "--quiet", "--target", platform.target]);
    cargo.arg("--target-dir").arg(root.join("target"));
    Ok(cargo)
}

/// cargo on the workspace of the tests and the tool, without the flags of pause, which cargo would take from
/// .cargo/config.toml in the folder above if this variable were not set.
pub fn cargo_tests(arguments: &[&str]) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.args(arguments).current_dir(root().join("tests")).env("RUSTFLAGS", "");
    cargo
}

/// Builds a program of that workspace, and returns its path. With a target of musl it is static, and has no path of
/// this machine in it.
pub fn build_program(
    name: &str,
    options: &[&str],
    musl: Option<&str>,
    variables: &[(String, String)],
) -> Result<PathBuf> {
    let arguments = ["build", "--locked", "--quiet", "--message-format", "json-render-diagnostics"];
    let mut cargo = cargo_tests(&[&arguments, options].concat());
    cargo.envs(variables.iter().cloned()).arg("--target-dir").arg(root().join("target"));
    if let Some(target) = musl {
        // Between the flags there is a separator that no path has (CARGO_ENCODED_RUSTFLAGS).
        let flags = format!(
            "-Clink-self-contained=yes\x1f--remap-path-prefix={}=/pause\x1f--remap-path-prefix={}/registry=/registry",
            root().display(),
            user_home()?.display()
        );
        cargo.args(["--target", target]).env("CARGO_ENCODED_RUSTFLAGS", flags);
        // It needs no other linker than that of the toolchain.
        cargo.env(linker_variable(target), rust_tool("rust-lld")?.get_program());
    }
    let mut running = cargo.stdout(Stdio::piped()).spawn().context("cargo")?;
    let messages = BufReader::new(running.stdout.take().context("a pipe")?);
    let mut program = None;
    for message in Message::parse_stream(messages) {
        if let Message::CompilerArtifact(artifact) = message?
            && artifact.target.name == name
        {
            program = artifact.executable.or(program);
        }
    }
    if !running.wait()?.success() {
        bail!("cargo build of {name} failed");
    }
    Ok(program.with_context(|| format!("cargo made no program {name}"))?.into())
}

/// A command for one of these programs: it looks at the files in `dist/`, and runs this tool in copies of the project.
pub fn program_of_tests(program: &Path) -> Result<Command> {
    let mut command = Command::new(program);
    command.env("PAUSE_XTASK", std::env::current_exe()?).env(ONLY, names(&platforms()).join(","));
    // An assertion that fails in what tests share: which test called it.
    command.env("RUST_BACKTRACE", "1");
    Ok(command)
}
