//! Makes keys and signatures in the format of cosign: an ECDSA P-256 key, encrypted by a
//! passphrase, and signatures over the SHA-256 of a file, in base64. skopeo signs images with
//! the same key.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sigstore::crypto::SigningScheme;
use sigstore::crypto::signing_key::SigStoreKeyPair;

const SCHEME: SigningScheme = SigningScheme::ECDSA_P256_SHA256_ASN1;

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The passphrase in a file, whose first line it is, as skopeo takes it.
fn passphrase(path: &Path) -> Result<Vec<u8>> {
    let text = read(path)?;
    Ok(text.split(|byte| *byte == b'\n').next().unwrap_or_default().to_vec())
}

/// A private key that was opened.
pub struct Key(SigStoreKeyPair);

impl Key {
    pub fn open(key: &Path, phrase: &Path) -> Result<Self> {
        let pair = SigStoreKeyPair::from_encrypted_pem(&read(key)?, &passphrase(phrase)?);
        Ok(Self(pair.ok().with_context(|| {
            format!(
                "{} is no key of cosign's format, or {} is not its passphrase: scripts/release --new-key makes one",
                key.display(),
                phrase.display()
            )
        })?))
    }

    /// Writes FILE.sig for each file, and the public key.
    pub fn sign(&self, public: &Path, files: &[PathBuf]) -> Result<()> {
        let signer = self.0.to_sigstore_signer(&SCHEME)?;
        for file in files {
            let signature = BASE64_STANDARD.encode(signer.sign(&read(file)?)?);
            fs::write(format!("{}.sig", file.display()), signature + "\n")?;
        }
        Ok(fs::write(public, self.0.public_key_to_pem()?)?)
    }
}

/// Writes PREFIX.key and PREFIX.pub, neither of which may exist.
pub fn new_key(prefix: &str, phrase: &Path) -> Result<()> {
    let [private, public] = ["key", "pub"].map(|end| format!("{prefix}.{end}"));
    if let Some(there) = [&private, &public].into_iter().find(|name| Path::new(name).exists()) {
        bail!("{there} exists, and is not replaced");
    }
    let pair = SCHEME.create_signer()?.to_sigstore_keypair()?;
    let pem = pair.private_key_to_encrypted_pem(&passphrase(phrase)?)?;
    fs::write(&private, pem.as_bytes()).context(private)?;
    fs::write(&public, pair.public_key_to_pem()?).context(public)
}
