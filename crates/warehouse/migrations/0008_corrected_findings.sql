-- The last state of every finding, and how much of what it rests on was corrected since: detectors do
-- not judge again. What tells more of a call has the call's own id and is no correction of it.
CREATE OR REPLACE VIEW findings AS
SELECT
    workspace,
    scope,
    detector,
    rule,
    agent,
    model,
    opened_at,
    latest.1 AS customer,
    latest.2 AS feature,
    latest.3 AS state,
    latest.4 AS severity,
    latest.5 AS last_at,
    latest.6 AS measured,
    latest.7 AS threshold,
    latest.8 AS wasted,
    latest.9 AS evidence,
    latest.10 AS message,
    updates,
    arrayCount(
        event -> (workspace, event.1, event.2) IN (
            SELECT spend.workspace, spend.source, spend.amends_id
            FROM spend
            WHERE spend.kind IN ('correction', 'rerate') AND spend.event_id != spend.amends_id),
        evidence) AS corrected
FROM
(
    SELECT
        workspace,
        scope,
        detector,
        rule,
        agent,
        model,
        opened_at,
        argMax(
            tuple(customer, feature, state, severity, last_at, measured, threshold, wasted, evidence, message),
            tuple(epoch, stage_seq, stage_index)) AS latest,
        count() AS updates
    FROM finding_changes
    GROUP BY workspace, scope, detector, rule, agent, model, opened_at
);
