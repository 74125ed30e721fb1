//! The role for analysts: it reads every table of the database and changes nothing.

use crate::client::Warehouse;
use crate::error::WarehouseError;

/// ClickHouse lets this user make no roles, or keeps its users in files only.
const NOT_ALLOWED: [u32; 3] = [497, 514, 495];

impl Warehouse {
    /// The role's name.
    pub fn reader_role(&self) -> String {
        format!("reader_{}", self.config().database)
    }

    /// Makes the role. A server that does not let this user make roles is no failure: whoever may
    /// runs the two statements, which the log names after a change of the schema.
    pub(crate) async fn create_reader(&self, has_changed: bool) -> Result<(), WarehouseError> {
        let (role, database) = (self.reader_role(), &self.config().database);
        let statements = [
            format!("CREATE ROLE IF NOT EXISTS `{role}`"),
            format!("GRANT SELECT ON `{database}`.* TO `{role}`"),
        ];
        for statement in &statements {
            match self
                .execute(statement, "making the role for analysts")
                .await
            {
                Ok(()) => {}
                Err(error) if error.is_one_of(&NOT_ALLOWED) => {
                    let statements = statements.join("; ");
                    let refused = format!(
                        "no role {role} for analysts: this ClickHouse user may not make it; \
                         somebody who may runs: {statements}"
                    );
                    if has_changed {
                        tracing::info!("{refused}");
                    } else {
                        tracing::debug!("{refused}");
                    }
                    return Ok(());
                }
                Err(WarehouseError::Refused { detail, .. }) if !has_changed => {
                    tracing::debug!("no role {role} for analysts: {detail}");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
