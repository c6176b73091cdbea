//! What each API answers: one broker in this process, asked over a socket by our own codec.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod client;
mod configs;
mod consumer_groups;
mod fetch;
mod full_disk;
mod group_commands;
mod group_metrics;
mod groups;
mod kit;
mod offsets;
mod power_cut;
mod producers;
mod repair;
mod settings;
mod topics;
mod versions;
