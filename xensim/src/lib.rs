// SPDX-License-Identifier: LGPL-2.1-or-later
//! A simulated Xen host for tests.
//!
//! What is simulated is the devices alone: `/dev/xen/*` and `/proc/xen/*`, by a library that is preloaded into every
//! process that shall believe in the host. Everything above them is real: xenstored, libxenstore, libxenctrl,
//! libxenlight, and whatever toolstack is tested. The domains are records in a table that all these processes share;
//! this crate edits it, raises the event that tells xenstored so, and writes the store as a toolstack does.
//!
//! ```no_run
//! # fn main() -> xensim::Result<()> {
//! let host = xensim::Host::up()?;
//! let domid = host.create(&xensim::Config::named("guest"))?;
//! let mut program = host.command("./my-toolstack").spawn().map_err(xensim::Error::from)?;
//! host.shutdown(domid, xensim::Reason::POWEROFF)?;
//! # program.wait().map_err(xensim::Error::from)?;
//! # Ok(()) }
//! ```
//!
//! The rooms, each of which uses only those below it:
//!
//! | room | what it is for |
//! |---|---|
//! | [`toolstack`] | what a toolstack and its guests do to a host: create, shut down, suspend, resume, destroy |
//! | [`host`] | a host: its directory, coming up and going down, who owns it, the environment of its clients |
//! | `lifeline` | what ties a host to its owner |
//! | [`daemon`] | the real xenstored: start, stop, wait |
//! | [`store`] | a small client of the xenstore protocol |
//! | [`evtchn`] | event channels between processes |
//! | [`grants`] | the pages that domains grant |
//! | [`inject`] | faults and delays of hypercalls, and their counters |
//! | [`domains`] | the domains' records |
//! | [`table`] | the file that all processes of a host map |
//! | [`sys`] | system calls that std lacks |

pub mod daemon;
pub mod domains;
mod error;
pub mod evtchn;
pub mod grants;
pub mod host;
pub mod inject;
mod lifeline;
pub mod store;
pub mod sys;
pub mod table;
pub mod toolstack;

pub use domains::{Domain, Domid, Reason};
pub use error::{Error, Result};
pub use host::{Builder, Host};
pub use inject::{Access, Call, Fault, Role};
pub use toolstack::{Config, Nodes};
