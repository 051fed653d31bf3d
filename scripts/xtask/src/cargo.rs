//! cargo for pause and for what is built as pause is, with a result that does not depend on the
//! settings of the user.
//!
//! Only the environment variables in a list reach cargo. The config.toml files of the user (in the
//! cargo folder, and in folders above the project) are reduced to the tables that say how to reach
//! a registry; the project's own is read as it is. Variables such as RUSTFLAGS or
//! CARGO_PROFILE_RELEASE_OPT_LEVEL, and tables such as `[build]`, `[target]`, `[profile]` and
//! `[env]`, have no effect.
//!
//! The compiler is the one in rust-toolchain.toml. If rustup has no target of it for the platform,
//! Debian's compiler is used. PAUSE_RUST=debian selects Debian's in any case, and PAUSE_RUST=NAME
//! another toolchain of rustup.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

use crate::platforms::{Platform, host};
use crate::project::{output, replace, root};

/// What the compiler that rust-toolchain.toml names prints of itself.
fn rustc_prints(what: &str) -> Result<String> {
    let mut rustc = Command::new("rustc");
    output(rustc.args(["--print", what]).current_dir(root()).env_remove("RUSTUP_TOOLCHAIN"))
}

/// The sysroot of the toolchain that rust-toolchain.toml names.
pub fn sysroot() -> Result<PathBuf> {
    Ok(rustc_prints("sysroot")?.into())
}

/// A tool in it, such as rust-lld.
pub fn rust_tool(name: &str) -> Result<PathBuf> {
    // For a host with musl the folder has another name than the target.
    let host = rustc_prints("host-tuple")?;
    Ok(sysroot()?.join("lib/rustlib").join(host).join("bin").join(name))
}

/// What PAUSE_RUST says.
fn selected() -> String {
    std::env::var("PAUSE_RUST").unwrap_or_default()
}

/// Whether the toolchain has a target.
pub fn has_target(target: &str) -> Result<bool> {
    Ok(sysroot()?.join("lib/rustlib").join(target).join("lib").is_dir())
}

/// cargo's variable for the linker of a target.
pub fn linker_variable(target: &str) -> String {
    format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"))
}

/// Whether rustup's toolchain can build for a platform. PAUSE_RUST=debian says that it cannot, to
/// try the way that is left then.
pub fn rustup_has(platform: &Platform) -> Result<bool> {
    Ok((selected() != "debian" || platform.is_host()) && has_target(&platform.target)?)
}

/// The compiler for a platform.
fn rustc(platform: &Platform) -> Result<PathBuf> {
    match selected().as_str() {
        "" | "debian" if rustup_has(platform)? => Ok(sysroot()?.join("bin/rustc")),
        "" | "debian" => Ok("/usr/bin/rustc".into()),
        name => {
            let mut rustup = Command::new("rustup");
            let path = output(rustup.args(["which", "--toolchain", name, "rustc"]));
            Ok(path.with_context(|| format!("no toolchain {name}: rustup toolchain list"))?.into())
        }
    }
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
    table.retain(|name, _| {
        ["source", "registry", "registries", "http", "net", "credential-alias"].contains(&name)
    });
    // A relative path in it starts from the folder above the one that the file is in.
    let base = file.parent().and_then(Path::parent).context("a folder")?;
    fn make_absolute(table: &mut Table, base: &Path) {
        for (name, value) in table {
            let is_path = ["cainfo", "directory", "local-registry"].contains(&name.as_str());
            match value {
                Value::Table(below) => make_absolute(below, base),
                Value::String(path) if is_path => *path = base.join(&*path).display().to_string(),
                _ => (),
            }
        }
    }
    make_absolute(&mut table, base);
    Ok(table.to_string())
}

/// Makes a cargo folder with the user's downloads and passwords, and nothing else of the user's.
/// Its path stays the same, or cargo would build every dependency anew each time. Another run may
/// use it meanwhile, so that what is in it is replaced in one step.
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
    replace(&home.join("config.toml"), settings.as_bytes())?;
    Ok(home)
}

/// The reduced config.toml files of the folders above the project; the nearest is the last.
fn configs_above(user: &Path, home: &Path) -> Result<Vec<OsString>> {
    let mut arguments = Vec::new();
    let user = fs::canonicalize(user.join("config.toml")).ok();
    let above: Vec<_> = root().ancestors().skip(1).collect();
    for (number, folder) in above.into_iter().rev().enumerate() {
        let file = folder.join(".cargo/config.toml");
        let real = fs::canonicalize(&file).ok();
        if real.is_some() && real != user {
            let reduced = home.join(format!("{number}.toml"));
            replace(&reduced, registry_settings(&file)?.as_bytes())?;
            arguments.extend(["--config".into(), reduced.into_os_string()]);
        }
    }
    Ok(arguments)
}

/// The cargo folder of the user.
pub fn user_home() -> Result<PathBuf> {
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
        bail!(
            "/.cargo/config.toml would be read too: move it to a cargo folder that is not /.cargo"
        );
    }
    let user = user_home()?;
    let home = cargo_home(&user)?;
    let rustc = rustc(platform)?;
    let bin = sysroot()?.join("bin");
    let program = match command {
        "clippy" => rustc.with_file_name("cargo-clippy"), // with its driver beside it
        _ => bin.join("cargo"),
    };
    let root = root();
    // No path of this machine is in the debug information, so that files with it are the same too.
    let remap = |from: &Path, to: &str| {
        Value::from(format!("--remap-path-prefix={}={to}", from.display())).to_string()
    };
    let remaps = [
        remap(root, "/pause"),
        remap(&home.join("registry"), "/registry"),
        remap(&user.join("registry"), "/registry"),
    ];
    let mut cargo = Command::new(program);
    // From a folder in which cargo finds no other config.toml.
    cargo.current_dir("/").env_clear();
    cargo.envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(reaches_cargo)));
    cargo.env("CARGO_HOME", &home).env("CARGO", bin.join("cargo")).env("RUSTC", rustc);
    if platform.target != host().target {
        // The linker of the toolchain links every platform, by cargo's variable for it.
        cargo.env(linker_variable(&platform.target), rust_tool("rust-lld")?);
    }
    cargo.arg(command).args(configs_above(&user, &home)?);
    cargo.arg("--config").arg(root.join(".cargo/config.toml"));
    cargo.arg("--manifest-path").arg(root.join("Cargo.toml")).arg("--config");
    cargo.arg(format!("target.{}.rustflags=[{}]", platform.target, remaps.join(", ")));
    cargo.args(["--locked", "--quiet", "--target", &platform.target]);
    cargo.arg("--target-dir").arg(root.join("target"));
    Ok(cargo)
}
