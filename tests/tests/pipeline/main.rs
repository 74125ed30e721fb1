//! The whole pipeline, as separate processes of the real binary.

mod audit;
mod broken_variant;
mod completeness;
mod counted_twice;
mod crashes;
mod doctor;
mod epochs;
mod gaps;
mod limits;
mod made_anew;
mod make_up;
mod membership;
mod missing_parts;
mod misspelt;
mod nginx;
mod notifier;
mod other_clients;
mod provider_clients;
mod readiness;
mod refusing;
mod rejects;
mod take_over;
mod thin_slice;
mod throughput;
mod told;
mod unreadable;
