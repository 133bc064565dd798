//! DNS names of endpoints, resolved by the system's resolver and refreshed on a timer.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::timeout;

use crate::config::Config;
use crate::config::compile::Names;

/// How long one name may take; a slow resolver must not hold up a reload for longer.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Resolves every name in `config`. A name that cannot be resolved keeps what `last` knew: a
/// resolver that is down must not take the traffic down with it.
pub async fn resolve(config: &Config, last: &Names) -> Names {
    let mut names = Names::new();
    let tracks = config.services.iter().flat_map(|service| &service.tracks.0);
    let endpoints = tracks.flat_map(|(_, track)| track.endpoints.iter());
    let mut lookups = tokio::task::JoinSet::new();
    for endpoint in endpoints.filter(|endpoint| endpoint.address().is_none()) {
        if names.insert(endpoint.host.clone(), Vec::new()).is_none() {
            let host = endpoint.host.clone();
            lookups.spawn(async move { (look_up(&host).await, host) });
        }
    }
    while let Some(looked_up) = lookups.join_next().await {
        let Ok((addresses, host)) = looked_up else { continue };
        let addresses = addresses.unwrap_or_else(|error| {
            tracing::warn!(%host, %error, "name not resolved; what was known of it stays");
            last.get(&host).cloned().unwrap_or_default()
        });
        names.insert(host, addresses);
    }
    names
}

async fn look_up(host: &str) -> Result<Vec<IpAddr>, String> {
    let lookup = timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((host, 0)));
    let found = lookup.await.map_err(|_| "timed out".to_owned())?;
    let found = found.map_err(|error| error.to_string())?;
    let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    // Resolvers rotate their answers; the order must not look like a change.
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}
