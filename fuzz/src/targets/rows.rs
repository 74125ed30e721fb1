//! Row blocks, and the loader's offset metadata.

use bytes::Bytes;
use spendfuse_domain::UnixMillis;
use spendfuse_loader::batch::RowsRecord;
use spendfuse_loader::checkpoint::Checkpoint;
use spendfuse_warehouse::record::RowBlock;

use crate::Target;

/// Records of the rows topics, as the loader takes them apart.
pub const ROW_BLOCK: Target = Target {
    name: "row_block",
    examples: &["tests/samples/v0.1.0/row_blocks"],
    words: &[
        "spend",
        "budget_windows",
        "finding_changes",
        "verdicts",
        "\u{1}",
    ],
    most_bytes: 4 << 20,
    run: run_block,
};

/// The loader's intent and links in the metadata of committed offsets.
pub const CHECKPOINT: Target = Target {
    name: "checkpoint",
    examples: &["tests/samples/v0.1.0/checkpoints"],
    words: &[
        "\"v\":1",
        "\"intent\":{",
        "\"end\":7",
        "\"links\":[[\"spend\",0,1]]",
        "\"hash\":\"0\"",
    ],
    most_bytes: 4 << 20,
    run: run_checkpoint,
};

fn run_block(input: &[u8]) {
    let value = Bytes::copy_from_slice(input);
    let decoded = RowBlock::decode(&value);
    let read = RowsRecord::read(7, UnixMillis(0), value);
    match decoded {
        Ok(block) => {
            let again = RowBlock::decode(&block.encode().into());
            assert_eq!(again, Ok(block), "not as it was written");
        }
        Err(error) => assert!(read.is_err(), "{error}, but the loader takes it"),
    }
}

fn run_checkpoint(input: &[u8]) {
    let Ok(metadata) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(checkpoint) = Checkpoint::decode(metadata) {
        let again = Checkpoint::decode(&checkpoint.encode());
        assert_eq!(again, Ok(checkpoint), "not as it was written");
    }
}
