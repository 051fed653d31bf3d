//! A change of a node, and the kind of the runtime that it is for.

use serde::{Deserialize, Serialize};

use crate::edit::Setting;

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Containerd,
    Crio,
    K3s,
    Rke2,
    K0s,
    Microk8s,
    CriDockerd,
    Podman,
}

/// One change that switches a runtime.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A setting in a file. A file that is not there begins with `head`.
    Setting { file: String, setting: Setting, value: String, head: String },
    /// A file of our own.
    File { file: String, text: String },
}

impl Change {
    pub fn file(&self) -> &str {
        match self {
            Self::Setting { file, .. } | Self::File { file, .. } => file,
        }
    }
}
