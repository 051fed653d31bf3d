//! Makes keys and signatures in the format of cosign: an ECDSA P-256 key, encrypted by a
//! passphrase, and signatures over the SHA-256 of a file, in base64. skopeo signs images with
//! the same key.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sigstore::crypto::SigningScheme;
use sigstore::crypto::signing_key::SigStoreKeyPair;

const SCHEME: SigningScheme = SigningScheme::ECDSA_P256_SHA256_ASN1;

fn read(path: &str) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.to_string())
}

/// The passphrase in a file, whose first line it is, as skopeo takes it.
fn passphrase(path: &str) -> Result<Vec<u8>> {
    let text = read(path)?;
    let line = text.split(|byte| *byte == b'\n').next();
    Ok(line.unwrap_or_default().to_vec())
}

fn open(key: &str, phrase: &str) -> Result<SigStoreKeyPair> {
    SigStoreKeyPair::from_encrypted_pem(&read(key)?, &passphrase(phrase)?).ok().with_context(|| {
        format!("{key} is no key of cosign's format, or {phrase} is not its passphrase: scripts/release --new-key makes one")
    })
}

/// Writes PREFIX.key and PREFIX.pub, neither of which may exist.
fn new_key(prefix: &str, phrase: &str) -> Result<()> {
    let names = [format!("{prefix}.key"), format!("{prefix}.pub")];
    if let Some(there) = names.iter().find(|name| Path::new(name).exists()) {
        bail!("{there} exists, and is not replaced");
    }
    let pair = SCHEME.create_signer()?.to_sigstore_keypair()?;
    let private = pair.private_key_to_encrypted_pem(&passphrase(phrase)?)?;
    fs::write(&names[0], private.as_bytes()).context(names[0].clone())?;
    fs::write(&names[1], pair.public_key_to_pem()?).context(names[1].clone())?;
    Ok(())
}

/// Writes FILE.sig for each file, and the public key.
fn sign(key: &str, phrase: &str, public: &str, files: &[&str]) -> Result<()> {
    let pair = open(key, phrase)?;
    let signer = pair.to_sigstore_signer(&SCHEME)?;
    for file in files {
        let signature = BASE64_STANDARD.encode(signer.sign(&read(file)?)?);
        let name = format!("{file}.sig");
        fs::write(&name, signature + "\n").context(name)?;
    }
    fs::write(public, pair.public_key_to_pem()?).context(public.to_string())
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["new-key", prefix, phrase] => new_key(prefix, phrase),
        ["check", key, phrase] => open(key, phrase).map(drop),
        ["files", key, phrase, public, ref files @ ..] => sign(key, phrase, public, files),
        _ => Err(anyhow::anyhow!("scripts/release runs this; see its --help")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let script = std::env::var("PAUSE_SCRIPT").unwrap_or_else(|_| "scripts/tools".into());
            eprintln!("{script}: {}", format!("{error:#}").replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}
