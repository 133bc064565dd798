//! `splitway ready`: whether a gateway takes traffic, for health checks of containers.

use clap::Args;

use super::client::{Client, fail};
use super::{DONE, FAILED, print};

/// Exit with 0 if a running gateway takes traffic; needs no token.
#[derive(Debug, Args)]
pub struct Ready {
    #[command(flatten)]
    client: Client,
}

impl Ready {
    /// Runs the command and returns its exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        match self.client.text("/readyz") {
            Ok((200, says)) if says == "ready\n" => {
                print(&says);
                DONE
            }
            Ok((503, says)) => {
                print(&says);
                FAILED
            }
            // Any server may answer 200 to anything.
            Ok((code, _)) => fail(&format!(
                "what answers at {} is no admin API (it answered {code}); name the gateway's \
                 `admin.address` by --admin",
                self.client.address()
            )),
            Err(error) => fail(&error),
        }
    }
}
