//! `splitway demo`: two servers, a load and the gateway between, while the weights change.
//!
//! The gateway is the real one: its configuration is a file, and the demo edits that file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::sync::oneshot;

use crate::app::{self, Addresses};

use super::demo_parts::{Seen, send, serve_track};
use super::{DONE, FAILED, print, runtime};

/// The weights that the demo goes through, in percent for the canary.
const WEIGHTS: [u32; 4] = [5, 25, 50, 100];
/// Connections that share the load.
const CLIENTS: u32 = 8;

/// Show a split, its metrics and a weight change in a minute.
#[derive(Debug, Args)]
pub struct Demo {
    /// Requests a second
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rps: u32,
    /// Seconds at each weight
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
}

impl Demo {
    /// Runs the command and returns its exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        let result = runtime().map_err(anyhow::Error::from).and_then(|runtime| {
            runtime.block_on(async {
                tokio::select! {
                    result = self.show() => result,
                    () = app::stop_signal() => Ok(()),
                }
            })
        });
        match result {
            Ok(()) => DONE,
            Err(error) => {
                eprintln!("splitway: {error:#}");
                FAILED
            }
        }
    }

    async fn show(&self) -> anyhow::Result<()> {
        let folder = Folder::new()?;
        let file = folder.0.join("splitway.yaml");
        let stable = serve_track("stable").await?;
        let canary = serve_track("canary").await?;
        write_config(&file, stable, canary, WEIGHTS[0])?;
        let gateway = Gateway::start(&file).await?;
        let Addresses { listeners, admin } = &gateway.addresses;
        let proxy = listeners[0];
        print(&format!(
            "stable  http://{stable}\ncanary  http://{canary}\ngateway http://{proxy}   (try: curl -H \
             'canary: true' http://{proxy}/)\nadmin   http://{admin}/metrics\nconfig  {}\n\n",
            file.display()
        ));
        let seen = Arc::<Seen>::default();
        for _ in 0..CLIENTS {
            tokio::spawn(send(proxy, f64::from(self.rps) / f64::from(CLIENTS), Arc::clone(&seen)));
        }
        let mut pace = tokio::time::interval(Duration::from_secs(1));
        pace.tick().await;
        let mut before = seen.read();
        for weight in WEIGHTS {
            write_config(&file, stable, canary, weight)?;
            print(&format!("{} now says canary: {weight}\n", file.display()));
            for _ in 0..self.seconds {
                pace.tick().await;
                let now = seen.read();
                print(&line(weight, std::array::from_fn(|index| now[index] - before[index])));
                before = now;
            }
        }
        let metrics = format!("http://{admin}/metrics");
        let [stable, canary, failed] = seen.read();
        print(&format!(
            "\n{} requests, {failed} failed: {stable} to stable, {canary} to canary. \
             The weights were changed by editing the file; {metrics} counted along.\n",
            stable + canary + failed
        ));
        gateway.stop().await?;
        anyhow::ensure!(failed == 0, "{failed} requests failed");
        Ok(())
    }
}

fn line(weight: u32, [stable, canary, failed]: [u64; 3]) -> String {
    let total = stable + canary + failed;
    #[expect(clippy::cast_precision_loss, reason = "a share for display")]
    let share = if total == 0 { 0.0 } else { canary as f64 * 100.0 / total as f64 };
    format!(
        "  weight {weight:>3} %   stable {stable:>6}   canary {canary:>6} ({share:>5.1} %)   \
         failed {failed}\n"
    )
}

/// Replaces the file in one step, as every careful editor does.
fn write_config(
    file: &Path,
    stable: SocketAddr,
    canary: SocketAddr,
    weight: u32,
) -> anyhow::Result<()> {
    let text = format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\n\
         admin: {{ address: 127.0.0.1:0 }}\n\
         log: {{ level: warn }}\n\
         services:\n\
         \x20 - name: demo\n\
         \x20   tracks:\n\
         \x20     stable: {{ version: v1.0.0, endpoints: [\"{stable}\"] }}\n\
         \x20     canary: {{ version: v2.0.0, endpoints: [\"{canary}\"] }}\n\
         \x20   weights: {{ stable: {}, canary: {weight} }}\n\
         \x20   rules:\n\
         \x20     - match: {{ headers: {{ canary: \"true\" }} }}\n\
         \x20       track: canary\n",
        100 - weight
    );
    let next = file.with_extension("next");
    std::fs::write(&next, text).and_then(|()| std::fs::rename(&next, file))?;
    Ok(())
}

/// A folder that goes with the demo.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("splitway-demo-{}", std::process::id()));
        std::fs::create_dir_all(&folder).context("no folder for the demo's configuration")?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is a few hundred bytes in the temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The gateway on a thread of its own, as it runs in production.
struct Gateway {
    addresses: Addresses,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<Result<(), String>>,
}

impl Gateway {
    async fn start(file: &Path) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (started, starting) = oneshot::channel();
        let (ending, mut ended) = oneshot::channel();
        let file = file.to_owned();
        std::thread::Builder::new().name("gateway".into()).spawn(move || {
            let result = runtime().map_err(|error| error.to_string()).and_then(|runtime| {
                let stop = async { drop(stopped.await) };
                let started = |addresses: &Addresses| drop(started.send(addresses.clone()));
                let running = app::run(&file, true, stop, started);
                runtime.block_on(running).map_err(|error| error.to_string())
            });
            // A demo that was interrupted no longer listens.
            let _ = ending.send(result);
        })?;
        tokio::select! {
            Ok(addresses) = starting => Ok(Self { addresses, stop, ended }),
            ended = &mut ended => match ended {
                Ok(Err(error)) => Err(anyhow::anyhow!(error)),
                _ => Err(anyhow::anyhow!("the gateway ended at once")),
            },
        }
    }

    async fn stop(self) -> anyhow::Result<()> {
        // It may have ended by itself, which its result tells.
        let _ = self.stop.send(());
        self.ended.await?.map_err(anyhow::Error::msg)
    }
}
