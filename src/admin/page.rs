//! The page: files of the binary itself, under a policy that lets a browser load nothing else.
//!
//! They hold no figures; those come by the API, which asks for a token where tokens are set.

use http::StatusCode;
use http::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY};
use http::header::{X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};

use super::api::{Reply, text};

/// Path, type and content of a file.
type Part = (&'static str, &'static str, &'static str);

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// Every file of the page. uPlot is shipped as its registry package has it, with its licence.
const PARTS: [Part; 10] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page/page.css", CSS, include_str!("page/page.css")),
    ("/page/page.js", JAVASCRIPT, include_str!("page/page.js")),
    ("/page/api.js", JAVASCRIPT, include_str!("page/api.js")),
    ("/page/charts.js", JAVASCRIPT, include_str!("page/charts.js")),
    ("/page/service.js", JAVASCRIPT, include_str!("page/service.js")),
    ("/page/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/page/uplot/uPlot.iife.min.js", JAVASCRIPT, include_str!("page/uplot/uPlot.iife.min.js")),
    ("/page/uplot/uPlot.min.css", CSS, include_str!("page/uplot/uPlot.min.css")),
    ("/page/uplot/LICENSE", "text/plain; charset=utf-8", include_str!("page/uplot/LICENSE")),
];

/// Nothing from elsewhere, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Whether a file of the page is at `path`.
pub(super) fn is_part(path: &str) -> bool {
    PARTS.iter().any(|(known, ..)| *known == path)
}

/// The file at `path`, which [`is_part`] knows.
pub(super) fn part(path: &str) -> Reply {
    let found = PARTS.iter().find(|(known, ..)| *known == path);
    let (_, content_type, content) = found.copied().unwrap_or(PARTS[0]);
    let mut reply = text(StatusCode::OK, content_type, content);
    let fields: [(HeaderName, &'static str); 4] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fields {
        reply.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    reply
}
