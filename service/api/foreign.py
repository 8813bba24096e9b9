"""Fields of other servers and older clients that control or constrain generation.

One entry per field name. A nested field has its path as name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Foreign:
    """A foreign field.

    Args:
        use: fields of this server with the same effect; the error names the first one that the
            route takes.
        lacks: the missing feature, if no field of this server has the effect.
        neutral: values without effect, beside null, false and empty ones.
        part_of: fields that switch this one on; it has no effect if they are sent with a neutral
            value.

    """

    use: tuple[str, ...] = ()
    lacks: str = ""
    neutral: tuple[Any, ...] = ()
    part_of: tuple[str, ...] = ()


def _use(*fields: str) -> Foreign:
    return Foreign(use=fields)


def _structured(kind: str) -> Foreign:
    return _use(f"structured_outputs.{kind}", "text.format", "output_config.format")


def _lacks(what: str, *neutral: Any, part_of: tuple[str, ...] = ()) -> Foreign:
    return Foreign(lacks=what, neutral=neutral, part_of=part_of)


def _part(what: str, *switches: str) -> Foreign:
    return _lacks(what, part_of=switches)


_SCHEMA = _use("structured_outputs.json", "text.format", "output_config.format")
_GRAMMAR = _structured("grammar")
_REGEX = _structured("regex")
_CHOICE = _structured("choice")
_STOP = _use("stop", "stop_sequences")
_LENGTH = Foreign(use=("max_tokens", "max_output_tokens"), neutral=(-1, -2))
_BAN = _use("logit_control.suppress")
_STEER = _use("logit_control.steer")
_REPEAT = Foreign(use=("repetition_penalty",), neutral=(1,))
_TEMPERATURE = "dynamic temperature"
_TEMPERATURE_SWITCHES = ("dynatemp_range", "dynamic_temperature", "dynatemp")
_MIROSTAT = ("mirostat", "mirostat_mode")

FOREIGN: dict[str, Foreign] = {
    # The OpenAI clients' own arguments, sent as if they were fields.
    "extra_body": Foreign(use=("its fields at the top level",)),
    "extra_query": Foreign(use=("the URL's query",)),
    "extra_headers": Foreign(use=("the request's headers",)),
    # OpenAI's older names.
    "best_of": _lacks("best_of", 1),
    "functions": _use("tools"),
    "function_call": _use("tool_choice"),
    # Constraints: vLLM before 0.12, SGLang, llama.cpp, TabbyAPI, text-generation-webui, Ollama.
    "guided_json": _structured("json"),
    "guided_json_object": _structured("json_object"),
    "guided_regex": _REGEX,
    "guided_choice": _CHOICE,
    "guided_grammar": _GRAMMAR,
    "guided_whitespace_pattern": _structured("whitespace_pattern"),
    "json_schema": _SCHEMA,
    "json_schema_object": _SCHEMA,
    "response_schema": _SCHEMA,
    "output_schema": _SCHEMA,
    "schema": _SCHEMA,
    "json_object": _structured("json_object"),
    "json_mode": Foreign(use=("response_format", "text.format", "output_config.format")),
    "json": _SCHEMA,
    "format": Foreign(use=("response_format", "text.format", "output_config.format")),
    "regex": _REGEX,
    "regex_pattern": _REGEX,
    "choice": _CHOICE,
    "choices": _CHOICE,
    "grammar": _GRAMMAR,
    "grammar_string": _GRAMMAR,
    "gbnf": _GRAMMAR,
    "ebnf": _GRAMMAR,
    "structural_tag": _structured("structural_tag"),
    "whitespace_pattern": _structured("whitespace_pattern"),
    "response_format": _use("text.format", "output_config.format"),
    "response_format.schema": _use("response_format.json_schema.schema"),
    "response_format.value": _use("response_format.json_schema.schema"),
    # Lengths.
    "n_predict": _LENGTH,
    "num_predict": _LENGTH,
    "max_new_tokens": _LENGTH,
    "max_length": _LENGTH,
    "max_gen_len": _LENGTH,
    "max_tokens_to_sample": _LENGTH,
    "max_completion_tokens": _LENGTH,
    "max_tokens": _LENGTH,
    "max_output_tokens": Foreign(use=("max_tokens",), neutral=(-1,)),
    "min_new_tokens": Foreign(use=("min_tokens",), neutral=(0,)),
    "min_length": Foreign(use=("min_tokens",), neutral=(0,)),
    "t_max_predict_ms": _use("the header x-request-timeout"),
    # Stops.
    "stop": _STOP,
    "stop_sequences": _STOP,
    "stop_strings": _STOP,
    "stop_sequence": _STOP,
    "stop_words": _STOP,
    "stopping_strings": _STOP,
    "custom_stopping_strings": _STOP,
    "custom_token_bans": _BAN,
    "ban_eos_token": _use("ignore_eos", "logit_control.suppress"),
    # Bans and biases.
    "banned_strings": _BAN,
    "banned_tokens": _BAN,
    "banned_phrases": _BAN,
    "banned_regex": _lacks("suppression by a regular expression"),
    "antislop": _BAN,
    "bad_words_ids": _BAN,
    "suppress_tokens": _BAN,
    "sequence_bias": _use("logit_control.bias"),
    "logit_bias_exp": _use("logit_control.bias"),
    "custom_logit_processor": _use("logit_control"),
    "logits_processors": _use("logit_control"),
    "custom_params": _part("processors sent by a client", "custom_logit_processor"),
    # Steering.
    "steering": _STEER,
    "steering_vector": _STEER,
    "steering_vectors": _STEER,
    "steer_vector": _STEER,
    "steer_vector_request": _STEER,
    "control_vector": _STEER,
    "control_vectors": _STEER,
    "vector": _use("logit_control.steer[0].vector"),
    "strength": _use("logit_control.steer[0].strength"),
    "when": _use("when in an entry of logit_control"),
    "prefill": _use("logit_control.force"),
    # Rows.
    "n_probs": Foreign(use=("distribution.top_k",), neutral=(0,)),
    "top_logits": Foreign(use=("distribution.top_k",), neutral=(0,)),
    "top_logprobs_num": Foreign(use=("distribution.top_k",), neutral=(0,)),
    "return_logprob": _use("logprobs"),
    "logprob_start_len": _use("prompt_logprobs"),
    # Penalties, seeds, temperatures.
    "repeat_penalty": _REPEAT,
    "rep_pen": _REPEAT,
    "random_seed": Foreign(use=("seed",), neutral=(-1,)),
    "sampler_seed": Foreign(use=("seed",), neutral=(-1,)),
    "sampling_seed": Foreign(use=("seed",), neutral=(-1,)),
    "sampling_params": Foreign(use=("its fields at the top level",)),
    "options": Foreign(use=("its fields at the top level",)),
    "temp": _use("temperature"),
    "num_beams": Foreign(use=("use_beam_search",), neutral=(0, 1)),
    "thinking": _use("chat_template_kwargs.enable_thinking"),
    "reasoning": _use("reasoning_effort", "output_config.effort"),
    "reasoning_effort": _use("reasoning.effort", "output_config.effort"),
    "enable_thinking": _use("chat_template_kwargs.enable_thinking"),
    "thinking_budget": Foreign(use=("thinking_token_budget",), neutral=(-1,)),
    "reasoning_budget": Foreign(use=("thinking_token_budget",), neutral=(-1,)),
    # Samplers that this server does not have.
    "dry_multiplier": _lacks("DRY sampler", 0),
    "dry_base": _part("DRY sampler", "dry_multiplier"),
    "dry_allowed_length": _part("DRY sampler", "dry_multiplier"),
    "dry_penalty_last_n": _part("DRY sampler", "dry_multiplier"),
    "dry_range": _part("DRY sampler", "dry_multiplier"),
    "dry_sequence_breakers": _part("DRY sampler", "dry_multiplier"),
    "dry": _lacks("DRY sampler"),
    "xtc_probability": _lacks("XTC sampler", 0),
    "xtc_threshold": _part("XTC sampler", "xtc_probability"),
    "xtc": _lacks("XTC sampler"),
    "top_n_sigma": _lacks("top-n-sigma sampler", 0, -1),
    "nsigma": _lacks("top-n-sigma sampler", 0, -1),
    "typical_p": _lacks("typical sampling", 0, 1),
    "typical": _lacks("typical sampling", 0, 1),
    "top_a": _lacks("top-a sampler", 0),
    "tfs": _lacks("tail-free sampling", 0, 1),
    "tfs_z": _lacks("tail-free sampling", 0, 1),
    "epsilon_cutoff": _lacks("epsilon cutoff", 0),
    "eta_cutoff": _lacks("eta cutoff", 0),
    "smoothing_factor": _lacks("quadratic smoothing", 0),
    "smoothing_curve": _part("quadratic smoothing", "smoothing_factor"),
    "smoothing": _lacks("quadratic smoothing"),
    "skew": _lacks("skew sampler", 0),
    "dynamic_temperature": _lacks(_TEMPERATURE),
    "dynatemp": _lacks(_TEMPERATURE),
    "dynatemp_range": _lacks(_TEMPERATURE, 0),
    "dynatemp_low": _part(_TEMPERATURE, *_TEMPERATURE_SWITCHES),
    "dynatemp_high": _part(_TEMPERATURE, *_TEMPERATURE_SWITCHES),
    "dynatemp_min": _part(_TEMPERATURE, *_TEMPERATURE_SWITCHES),
    "dynatemp_max": _part(_TEMPERATURE, *_TEMPERATURE_SWITCHES),
    "dynatemp_exponent": _part(_TEMPERATURE, *_TEMPERATURE_SWITCHES),
    "min_temp": _lacks(_TEMPERATURE, 0, 1),
    "max_temp": _lacks(_TEMPERATURE, 0, 1),
    "temp_exponent": _part(_TEMPERATURE, "min_temp", "max_temp"),
    "mirostat": _lacks("mirostat", 0),
    "mirostat_mode": _lacks("mirostat", 0),
    "mirostat_tau": _part("mirostat", *_MIROSTAT),
    "mirostat_eta": _part("mirostat", *_MIROSTAT),
    "adaptive_p": _lacks("adaptive-p sampler"),
    "adaptive_target": _lacks("adaptive-p sampler", -1, 1),
    "adaptive_decay": _part("adaptive-p sampler", "adaptive_target"),
    "no_repeat_ngram_size": _lacks("ban of repeated n-grams", 0),
    "encoder_repetition_penalty": _lacks("penalty for words outside the prompt", 1),
    "penalty_alpha": _lacks("contrastive search", 0),
    "repetition_penalty_range": _lacks("range of the repetition penalty", 0, -1),
    "rep_pen_range": _lacks("range of the repetition penalty", 0, -1),
    "repeat_last_n": _part("range of the repetition penalty", "repeat_penalty"),
    "penalty_range": _lacks("range of the repetition penalty", 0, -1),
    "token_healing": _lacks("token healing"),
    # Guidance.
    "guidance": _lacks("guidance"),
    "guidance_scale": _lacks("guidance", 1),
    "cfg_scale": _lacks("guidance", 1),
    "negative_prompt": _lacks("guidance"),
}
