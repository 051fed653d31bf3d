//! Signs by a key of cosign: P-256, encrypted by a passphrase. The same key and the same content have
//! the same signature each time (RFC 6979), so that a release can be signed and pushed again.
//!
//! The format of the key is that of the Go packages sigstore/pkg/cryptoutils and
//! go-securesystemslib/encrypted. The crate for it, sigstore, brings OpenSSL or AWS-LC along, which are C,
//! and before 0.15 an RSA with a known flaw (RUSTSEC-2023-0071).

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use crypto_secretbox::aead::{Aead, KeyInit};
use crypto_secretbox::{Nonce, XSalsa20Poly1305};
use p256::SecretKey;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::elliptic_curve::Generate;
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use xtask::project::digest;

/// The media type of a sigstore bundle.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The media type of an in-toto statement.
pub const STATEMENT: &str = "application/vnd.in-toto+json";

const LABEL: &str = "ENCRYPTED SIGSTORE PRIVATE KEY";
/// What cosign has encrypted with before 2.0.
const OLD_LABEL: &str = "ENCRYPTED COSIGN PRIVATE KEY";

/// A private key, as it is stored. What is binary is in base64.
#[derive(Serialize, Deserialize)]
struct Stored {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Serialize, Deserialize)]
struct Params {
    #[serde(rename = "N")]
    n: u32,
    r: u32,
    p: u32,
}

#[derive(Serialize, Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

impl Stored {
    fn cipher(&self, phrase: &[u8]) -> Result<XSalsa20Poly1305> {
        let Params { n, r, p } = self.kdf.params;
        if (self.kdf.name.as_str(), self.cipher.name.as_str()) != ("scrypt", "nacl/secretbox")
            || !n.is_power_of_two()
        {
            bail!("another encryption");
        }
        let mut key = [0; 32];
        let params = scrypt::Params::new(n.ilog2() as u8, r, p)?;
        scrypt::scrypt(phrase, &BASE64_STANDARD.decode(&self.kdf.salt)?, &params, &mut key)?;
        Ok(XSalsa20Poly1305::new(&key.into()))
    }

    fn nonce(&self) -> Result<Nonce> {
        let nonce = BASE64_STANDARD.decode(&self.cipher.nonce)?;
        Nonce::from_exact_iter(nonce).context("a nonce of 24 bytes")
    }

    fn open(pem: &[u8], phrase: &[u8]) -> Result<SecretKey> {
        let (label, json) = pem_rfc7468::decode_vec(pem)?;
        if ![LABEL, OLD_LABEL].contains(&label) {
            bail!("another PEM file");
        }
        let stored: Self = serde_json::from_slice(&json)?;
        let ciphertext = BASE64_STANDARD.decode(&stored.ciphertext)?;
        let der = stored.cipher(phrase)?.decrypt(&stored.nonce()?, &ciphertext[..]);
        let der = der.ok().context("another passphrase")?;
        Ok(SecretKey::from_pkcs8_der(&der)?)
    }

    fn close(key: &SecretKey, phrase: &[u8]) -> Result<String> {
        let (mut salt, mut nonce) = ([0; 32], [0; 24]);
        getrandom::fill(&mut salt)?;
        getrandom::fill(&mut nonce)?;
        let encode = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        let params = Params { n: 1 << 16, r: 8, p: 1 };
        let mut stored = Self {
            kdf: Kdf { name: "scrypt".into(), params, salt: encode(&salt) },
            cipher: Cipher { name: "nacl/secretbox".into(), nonce: encode(&nonce) },
            ciphertext: String::new(),
        };
        let der = key.to_pkcs8_der()?;
        let ciphertext = stored.cipher(phrase)?.encrypt(&nonce.into(), der.as_bytes());
        let ciphertext = ciphertext.ok().context("encryption")?;
        stored.ciphertext = encode(&ciphertext);
        Ok(pem_rfc7468::encode_string(LABEL, LineEnding::LF, &serde_json::to_vec(&stored)?)?)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The passphrase in a file, whose first line it is, as skopeo takes it.
fn passphrase(path: &Path) -> Result<Vec<u8>> {
    let text = read(path)?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

/// A private key that was opened.
pub struct Key(SecretKey);

impl Key {
    pub fn open(key: &Path, phrase: &Path) -> Result<Self> {
        let (pem, passphrase) = (read(key)?, passphrase(phrase)?);
        Ok(Self(Stored::open(&pem, &passphrase).ok().with_context(|| {
            format!(
                "{} is no P-256 key of cosign's format, or {} is not its passphrase: scripts/release --new-key makes one",
                key.display(),
                phrase.display()
            )
        })?))
    }

    /// The public key in PEM.
    pub fn public(&self) -> Result<String> {
        Ok(self.0.public_key().to_public_key_pem(LineEnding::LF)?)
    }

    /// The signature over the SHA-256 of some bytes, in base64.
    pub fn sign(&self, bytes: &[u8]) -> String {
        let signature: Signature = SigningKey::from(&self.0).sign(bytes);
        BASE64_STANDARD.encode(signature.to_der())
    }

    /// A sigstore bundle with one kind of content. It names the public key by its digest, as cosign
    /// does; there is no entry of a transparency log.
    fn bundle(&self, kind: &str, content: &Value) -> Result<Vec<u8>> {
        let der = self.0.public_key().to_public_key_der()?;
        let hint = BASE64_STANDARD.encode(digest(der.as_bytes()));
        let material = json!({"publicKey": {"hint": hint}});
        let bundle = json!({"mediaType": BUNDLE, "verificationMaterial": material, kind: content});
        Ok(serde_json::to_vec(&bundle)?)
    }

    /// A bundle with the signature of a file.
    pub fn bundle_file(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let digest = BASE64_STANDARD.encode(digest(bytes));
        let digest = json!({"algorithm": "SHA2_256", "digest": digest});
        let content = json!({"messageDigest": digest, "signature": self.sign(bytes)});
        self.bundle("messageSignature", &content)
    }

    /// A bundle with an in-toto statement in a signed envelope (DSSE 1.0).
    pub fn bundle_statement(&self, statement: &[u8]) -> Result<Vec<u8>> {
        let header = format!("DSSEv1 {} {STATEMENT} {} ", STATEMENT.len(), statement.len());
        let signature = self.sign(&[header.as_bytes(), statement].concat());
        let payload = BASE64_STANDARD.encode(statement);
        let content = json!({
            "payload": payload, "payloadType": STATEMENT, "signatures": [{"sig": signature}],
        });
        self.bundle("dsseEnvelope", &content)
    }
}

/// Writes PREFIX.key, which only its owner can read, and PREFIX.pub. Neither may exist.
pub fn new_key(prefix: &str, phrase: &Path) -> Result<()> {
    let [private, public] = ["key", "pub"].map(|end| format!("{prefix}.{end}"));
    if let Some(there) = [&private, &public].into_iter().find(|name| Path::new(name).exists()) {
        bail!("{there} exists, and is not replaced");
    }
    let passphrase = passphrase(phrase)?;
    if passphrase.is_empty() {
        bail!("{} has no passphrase in its first line", phrase.display());
    }
    let key = Key(SecretKey::generate());
    let pem = Stored::close(&key.0, &passphrase)?;
    let write = |name: &str, mode: u32, content: &str| {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(name)?;
        file.write_all(content.as_bytes())
    };
    for (name, mode, content) in [(&private, 0o600, &pem), (&public, 0o644, &key.public()?)] {
        if let Err(error) = write(name, mode, content) {
            // No half of a pair is left.
            let _ = fs::remove_file(&private);
            let _ = fs::remove_file(&public);
            bail!("{name}: {error}");
        }
    }
    Ok(())
}
