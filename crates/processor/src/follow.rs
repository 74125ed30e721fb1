//! placeholder until the follower lands
use crate::run::ProcessorConfig;
use crate::tables::Tables;
use spendfuse_bus::BusError;
use std::sync::Arc;
pub struct F;
impl F {
    pub fn stop(self) {}
}
pub fn start(_: &ProcessorConfig, _: Arc<Tables>) -> Result<F, BusError> {
    Ok(F)
}
