//! What is kept, and what only looks as if it were.

use super::*;

#[test]
fn what_a_provider_keeps_is_found_wherever_it_is_named() {
    for (body, wanted) in [
        (
            r#"{"previous_response_id":"resp_1"}"#,
            Some("previous_response_id"),
        ),
        (
            r#"{"previous\u005fresponse_id":"resp_1"}"#,
            Some("previous_response_id"),
        ),
        (r#"{"conversation":{"id":"conv_1"}}"#, Some("conversation")),
        (r#"{"prompt":{"id":"pmpt_1"}}"#, Some("prompt")),
        (
            r#"{"input":[{"type":"item_reference","id":"msg_1"}]}"#,
            Some("item_reference"),
        ),
        (r#"{"input":[{"type":null,"id":"msg_1"}]}"#, Some("input")),
        (
            r#"{"model":"m","type":"tool_use","input":[{"id":"msg_1"}]}"#,
            Some("input"),
        ),
        (
            r#"{"input":[{"type":"image_generation_call","id":"ig_1"}]}"#,
            Some("image_generation_call"),
        ),
        (
            r#"{"input":[{"content":[{"type":"input_file","file_id":"f"}]}]}"#,
            Some("file_id"),
        ),
        (
            r#"{"tools":[{"fileSearch":{"fileSearchStoreNames":["fileSearchStores/1"]}}]}"#,
            Some("fileSearchStoreNames"),
        ),
        (
            r#"{"tools":[{"type":"file_search","vector_store_ids":["vs_1"]}]}"#,
            Some("vector_store_ids"),
        ),
        (
            r#"{"cachedContent":"cachedContents/1"}"#,
            Some("cachedContent"),
        ),
        (
            r#"{"contents":[{"parts":[{"fileData":{"fileUri":"HTTPS://generativelanguage.GoogleApis.com/v1beta/%66iles/1"}}]}]}"#,
            Some("fileUri"),
        ),
        (
            r#"{"contents":[{"parts":[{"fileData":{"fileUri":"gs://b/1"}}]}]}"#,
            Some("fileUri"),
        ),
        (
            r#"{"messages":[{"content":[{"video":{"source":{"s3Location":{"uri":"s3://b"}}}}]}]}"#,
            Some("s3Location"),
        ),
        (r#"{"container":"container_1"}"#, Some("container")),
        (
            r#"{"container":{"skills":[{"type":"custom","skill_id":"skill_01A"}]}}"#,
            Some("skill_id"),
        ),
        (
            r#"{"messages":[{"type":"message","input":{"file_id":"f"},"type":"tool_use"}]}"#,
            Some("file_id"),
        ),
        (
            r#"{"messages":[{"input":{"file_id":"mine"},"type":"tool_use"},{"file_id":"f"}]}"#,
            Some("file_id"),
        ),
        // Nothing that is kept.
        (
            r#"{"input":[{"role":"user","content":"x"},{"type":"image_generation_call","id":"ig_1","result":"aGk="}]}"#,
            None,
        ),
        (r#"{"input":["x",{"text":"y"}]}"#, None),
        (
            r#"{"container":{"skills":[{"type":"anthropic","skill_id":"pptx"}]}}"#,
            None,
        ),
        (
            r#"{"tools":[{"input_examples":[{"file_id":"mine"}]}],"labels":{"conversation":"mine"},"requestMetadata":{"container":"mine"}}"#,
            None,
        ),
        (
            r#"{"query":"q","documents":[{"conversation":"Hello"},{"id":"d","data":{"file_id":"mine"}}]}"#,
            None,
        ),
        (
            r#"{"messages":[{"input":{"file_id":"mine"},"type":"tool_use","id":"t"}]}"#,
            None,
        ),
        (
            r#"{"input":[{"type":"function_call","id":"f","arguments":{"file_id":"mine"}}]}"#,
            None,
        ),
        (
            r#"{"previous_response_id":null,"prompt":"x","conversation":""}"#,
            None,
        ),
        (
            r#"{"tools":[{"type":"code_interpreter","container":{"type":"auto"}}]}"#,
            None,
        ),
        (
            r#"{"tools":[{"function":{"parameters":{"properties":{"file_id":{"type":"string"}}}}}]}"#,
            None,
        ),
        (
            r#"{"messages":[{"content":[{"type":"tool_use","input":{"file_id":"mine"}}]}]}"#,
            None,
        ),
        (
            r#"{"metadata":{"conversation":"mine"},"audio":{"voice":"alloy"}}"#,
            None,
        ),
        (
            r#"{"contents":[{"parts":[{"fileData":{"fileUri":"https://youtu.be/1"}}]}]}"#,
            None,
        ),
        (
            r#"{"contents":[{"parts":[{"fileData":{"fileUri":"https://x.example/files/1.pdf"}}]}]}"#,
            None,
        ),
        (
            r#"{"messages":[{"content":[{"toolResult":{"toolUseId":"t","content":[{"json":{"file_id":"mine"}}]}}]}]}"#,
            None,
        ),
        (
            r#"{"text":{"format":{"schema":{"examples":[{"container":"mine"}]}}}}"#,
            None,
        ),
    ] {
        assert_eq!(named_in(body.as_bytes()), wanted, "{body}");
    }
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    assert!(named_in(deep.as_bytes()).is_some());
}
