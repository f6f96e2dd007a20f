// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the fuzz targets share: a host that answers as the input says, and an application that calls as the input says.
//!
//! - [`host`] stands in for libxenstore and libxenctrl. Everything above them is the library as it is.
//! - [`application`] is a program on that host. It keeps books of what it has asked for, and ends the process when it is told
//!   something that doesn't fit them.
//! - [`input`] is what inputs are made of.

pub mod application;
pub mod host;
pub mod input;
