//! Which user sent a request, where users keep their track.

use crate::route::seal::{COOKIES_MAX, Identity, Seal};
use crate::route::{StickyKey, View, rules};

use super::local::LocalService;
use super::worker::Worker;

/// The fingerprint of the request's user, and the cookie that shall carry a new user's key.
pub(super) fn sticky_user(
    worker: &Worker,
    service: &LocalService,
    view: &View<'_>,
    is_https: impl FnOnce() -> bool,
) -> Option<(u64, Option<Box<str>>)> {
    let sticky = service.shared.sticky.as_ref()?;
    match &sticky.key {
        StickyKey::Header(name) => {
            let mut fingerprint = None;
            view.headers.any(name, &mut |key| {
                // An empty key is none.
                fingerprint = (!key.is_empty()).then(|| sticky.fingerprint(key));
                fingerprint.is_some()
            });
            fingerprint.map(|fingerprint| (fingerprint, None))
        }
        StickyKey::Cookie { name, max_age_s, seal } => {
            if let Some(identity) = cookie_user(view, name, seal) {
                return Some((sticky.fingerprint(&identity), None));
            }
            let key = u128::from(worker.dice()) << 64 | u128::from(worker.dice());
            let (value, identity) = seal.close(key);
            let age = max_age_s.map_or_else(String::new, |age| format!("; Max-Age={age}"));
            let secure = if is_https() { "; Secure" } else { "" };
            let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{age}");
            Some((sticky.fingerprint(&identity), Some(cookie.into())))
        }
    }
}

/// Whose cookie came: the first that we signed.
fn cookie_user(view: &View<'_>, name: &str, seal: &Seal) -> Option<Identity> {
    let (mut found, mut looked_at) = (None, 0);
    rules::any_cookie(view, name, &mut |value| {
        if Seal::may_open(value) {
            found = seal.open(value);
            looked_at += 1;
        }
        found.is_some() || looked_at == COOKIES_MAX
    });
    found
}
