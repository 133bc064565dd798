//! Gateway of Istio: who listens, and with which certificates.

use crate::import::draft::{Draft, plain};
use crate::import::finding::Report;
use crate::import::manifest::Manifest;

/// Takes the certificates of Gateways, and whether they send everybody to HTTPS.
pub(in crate::import) fn import(manifests: &[Manifest], report: &Report, draft: &mut Draft) {
    let is_ours =
        |one: &&Manifest| one.kind == "Gateway" && one.api.starts_with("networking.istio.io/");
    for manifest in manifests.iter().filter(is_ours) {
        let Some((whole, spec)) = manifest.spec(report) else { continue };
        spec.skip(&["selector"]);
        let mut redirects = None;
        for field in spec.get("servers").map(|list| list.list()).unwrap_or_default() {
            let server = field.map();
            server.skip(&["hosts", "name", "bind", "defaultEndpoint"]);
            let port = server.get("port").map(|port| port.map());
            let protocol = port.and_then(|port| port.text("protocol")).unwrap_or("HTTP");
            if !matches!(protocol, "HTTP" | "HTTPS" | "HTTP2" | "GRPC" | "GRPC-WEB") {
                field.unsupported(format!("speaks {protocol}; Splitway splits requests of HTTP"));
            }
            if let Some(field) = server.get("tls") {
                let tls = field.map();
                if tls.text("httpsRedirect") == Some("true") {
                    redirects = Some(field.clone());
                }
                match tls.text("mode") {
                    Some("SIMPLE") | None => {}
                    Some("MUTUAL" | "OPTIONAL_MUTUAL") => field.unsupported(
                        "asks clients for certificates; write `client_ca` at the listener's `tls`",
                    ),
                    Some(_) => field.unsupported(
                        "passes TLS through, or uses the mesh's own; give a listener a certificate",
                    ),
                }
                if let Some(name) = tls.get("credentialName")
                    && let Some(secret) = name.text()
                {
                    draft.certificate(secret, &name);
                }
                match tls.get("minProtocolVersion").and_then(|version| version.text()) {
                    Some("TLSV1_3") => {
                        draft.tls.push(("min_version".to_owned(), plain("1.3")));
                        draft.tls.dedup();
                    }
                    Some("TLSV1_0" | "TLSV1_1") => field.differs("is TLS 1.2 at least"),
                    _ => {}
                }
                tls.refuse(&[
                    (
                        "serverCertificate",
                        "is a file of the gateway; name it at the listener's `tls`",
                    ),
                    ("privateKey", "is a file of the gateway; name it at the listener's `tls`"),
                    ("caCertificates", "is a file of the gateway; name it as `client_ca`"),
                    ("maxProtocolVersion", "has no counterpart"),
                    ("cipherSuites", "are decided by Splitway: forward secrecy alone"),
                    ("subjectAltNames", "has no counterpart"),
                ]);
                tls.finish();
            }
            server.finish();
        }
        spec.finish();
        if let Some(field) = redirects {
            if draft.certificates.is_empty() {
                field.unsupported("sends to HTTPS, and no listener with a certificate is there; name one as `credentialName`");
            } else {
                draft.redirects = true;
                field.differs("is the listener's `redirect_https`, for all hosts, with 308");
            }
        }
        whole.differs(
            "listens on ports of its own; the listeners here are 8080 and, with certificates, 8443",
        );
    }
}
