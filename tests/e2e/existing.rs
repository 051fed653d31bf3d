//! Runs `scripts/e2e --endpoint` against a node that exists already. Here the node is a cell.

use crate::guest;
use crate::node::Node;
use crate::report::Report;
use harness::programs::root;

pub fn check(node: &Node, report: &mut Report) {
    report.check(
        "scripts/e2e --endpoint makes its pods there, and leaves none",
        || {
            let logs = node.logs().join("existing");
            let (endpoint, logs) = (&node.endpoint, logs.display());
            let output = node.sh(&match guest::here() {
                true => guest::program(endpoint, &format!("{logs}")),
                false => format!(
                    "{}/scripts/e2e --endpoint {endpoint} --logs {logs}",
                    root().display()
                ),
            });
            let last = output.lines().last().unwrap_or_default();
            assert!(last.ends_with(" passed, 0 failed"), "{last}");
            assert_eq!(node.crictl("pods --quiet"), "");
            assert_eq!(node.crictl("images --quiet localhost/e2e"), "");
            last.into()
        },
    );
}
