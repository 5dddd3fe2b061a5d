package importance

import (
	"strconv"
	"strings"
)

// family is how llama.cpp calls the layers of some architectures: # is the number of
// the block, and @ of the expert, all of whose moments llama.cpp keeps in one tensor.
// Only weights are here that llama.cpp multiplies with the same inputs as the model
// does, and of which the rows are outputs: those of GPT-2 lie the other way.
type family struct {
	name string
	rows []row
}

// row is one kind of layer.
type row struct {
	model  []string // parts of the model's name after any beginning
	theirs string   // llama.cpp's name
}

// families of transformers' names. Names that several architectures share stand in the
// first one.
var families = []family{
	{"decoders such as llama", rows(
		"lm_head = output",
		"layers.#.self_attn.q_proj = blk.#.attn_q",
		"layers.#.self_attn.k_proj = blk.#.attn_k",
		"layers.#.self_attn.v_proj = blk.#.attn_v",
		"layers.#.self_attn.qkv_proj = blk.#.attn_qkv",
		"layers.#.self_attn.o_proj = blk.#.attn_output",
		"layers.#.self_attn.out_proj = blk.#.attn_output",
		"layers.#.self_attn.dense = blk.#.attn_output",
		"layers.#.self_attn.q_a_proj = blk.#.attn_q_a",
		"layers.#.self_attn.q_b_proj = blk.#.attn_q_b",
		"layers.#.self_attn.kv_a_proj_with_mqa = blk.#.attn_kv_a_mqa",
		"layers.#.self_attn.kv_b_proj = blk.#.attn_kv_b",
		"layers.#.mlp.gate_proj = blk.#.ffn_gate",
		"layers.#.mlp.up_proj = blk.#.ffn_up",
		"layers.#.mlp.gate_up_proj = blk.#.ffn_up",
		"layers.#.mlp.down_proj = blk.#.ffn_down",
		"layers.#.mlp.fc1 = blk.#.ffn_up",
		"layers.#.mlp.fc2 = blk.#.ffn_down",
		"layers.#.mlp.c_fc = blk.#.ffn_up",
		"layers.#.mlp.c_proj = blk.#.ffn_down",
		"layers.#.mlp.gate = blk.#.ffn_gate_inp",
		"layers.#.mlp.experts.@.gate_proj = blk.#.ffn_gate_exps",
		"layers.#.mlp.experts.@.up_proj = blk.#.ffn_up_exps",
		"layers.#.mlp.experts.@.down_proj = blk.#.ffn_down_exps",
		"layers.#.mlp.experts.gate_up_proj = blk.#.ffn_gate_exps",
		"layers.#.mlp.experts.down_proj = blk.#.ffn_down_exps",
		"layers.#.mlp.shared_expert.gate_proj = blk.#.ffn_gate_shexp",
		"layers.#.mlp.shared_expert.up_proj = blk.#.ffn_up_shexp",
		"layers.#.mlp.shared_expert.down_proj = blk.#.ffn_down_shexp",
		"layers.#.mlp.shared_experts.gate_proj = blk.#.ffn_gate_shexp",
		"layers.#.mlp.shared_experts.up_proj = blk.#.ffn_up_shexp",
		"layers.#.mlp.shared_experts.down_proj = blk.#.ffn_down_shexp",
		"layers.#.block_sparse_moe.gate = blk.#.ffn_gate_inp",
		"layers.#.block_sparse_moe.experts.@.w1 = blk.#.ffn_gate_exps",
		"layers.#.block_sparse_moe.experts.@.w2 = blk.#.ffn_down_exps",
		"layers.#.block_sparse_moe.experts.@.w3 = blk.#.ffn_up_exps",
		"layers.#.feed_forward.gate_proj = blk.#.ffn_gate",
		"layers.#.feed_forward.up_proj = blk.#.ffn_up",
		"layers.#.feed_forward.down_proj = blk.#.ffn_down",
		"layers.#.feed_forward.shared_expert.gate_proj = blk.#.ffn_gate_shexp",
		"layers.#.feed_forward.shared_expert.up_proj = blk.#.ffn_up_shexp",
		"layers.#.feed_forward.shared_expert.down_proj = blk.#.ffn_down_shexp",
	)},
	{"llama's own names", rows(
		"output = output",
		"layers.#.attention.wq = blk.#.attn_q",
		"layers.#.attention.wk = blk.#.attn_k",
		"layers.#.attention.wv = blk.#.attn_v",
		"layers.#.attention.wo = blk.#.attn_output",
		"layers.#.feed_forward.w1 = blk.#.ffn_gate",
		"layers.#.feed_forward.w2 = blk.#.ffn_down",
		"layers.#.feed_forward.w3 = blk.#.ffn_up",
	)},
	{"bert", rows(
		"encoder.layer.#.attention.self.query = blk.#.attn_q",
		"encoder.layer.#.attention.self.key = blk.#.attn_k",
		"encoder.layer.#.attention.self.value = blk.#.attn_v",
		"encoder.layer.#.attention.output.dense = blk.#.attn_output",
		"encoder.layer.#.intermediate.dense = blk.#.ffn_up",
		"encoder.layer.#.output.dense = blk.#.ffn_down",
	)},
	{"distilbert", rows(
		"transformer.layer.#.attention.q_lin = blk.#.attn_q",
		"transformer.layer.#.attention.k_lin = blk.#.attn_k",
		"transformer.layer.#.attention.v_lin = blk.#.attn_v",
		"transformer.layer.#.attention.out_lin = blk.#.attn_output",
		"transformer.layer.#.ffn.lin1 = blk.#.ffn_up",
		"transformer.layer.#.ffn.lin2 = blk.#.ffn_down",
	)},
	{"gpt-neox", rows(
		"embed_out = output",
		"layers.#.attention.query_key_value = blk.#.attn_qkv",
		"layers.#.attention.dense = blk.#.attn_output",
		"layers.#.mlp.dense_h_to_4h = blk.#.ffn_up",
		"layers.#.mlp.dense_4h_to_h = blk.#.ffn_down",
	)},
	{"falcon and bloom", rows(
		"lm_head = output",
		"h.#.self_attention.query_key_value = blk.#.attn_qkv",
		"h.#.self_attention.dense = blk.#.attn_output",
		"h.#.mlp.dense_h_to_4h = blk.#.ffn_up",
		"h.#.mlp.dense_4h_to_h = blk.#.ffn_down",
	)},
}

func rows(lines ...string) []row {
	all := make([]row, len(lines))
	for i, line := range lines {
		model, theirs, _ := strings.Cut(line, " = ")
		all[i] = row{strings.Split(model, "."), theirs}
	}
	return all
}

// translate returns the beginning of a layer's name before what a row says, llama.cpp's
// name for it, and the number of the expert, 0 where there is none.
func (r row) translate(name string) (beginning, theirs string, expert int64, ok bool) {
	end, parts := len(name), r.model
	block := ""
	for i := len(parts) - 1; i >= 0; i-- {
		if end < 0 {
			return "", "", 0, false
		}
		from := strings.LastIndexByte(name[:end], '.') + 1
		part := name[from:end]
		switch want := parts[i]; {
		case want == "#" || want == "@":
			n, err := strconv.ParseUint(part, 10, 31)
			if err != nil {
				return "", "", 0, false
			}
			if want == "@" {
				expert = int64(n)
			} else {
				block = part
			}
		case want != part:
			return "", "", 0, false
		}
		end = from - 1
	}
	return name[:end+1], strings.Replace(r.theirs, "#", block, 1), expert, true
}
