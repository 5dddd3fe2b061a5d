package ctq

import "strings"

// Section is a part of the help: options that belong together.
type Section struct {
	Title   string
	Options []Option
}

// sections are the titles, by the option that asks for them alone.
var sections = []struct{ asked, title, names string }{
	{"help", "Standard options", ""},
	{"help_learned", "Learned rounding", "full_matrix calib_samples calib_cpu manual_seed optimizer num_iter lr use_speed lr_schedule top_p min_k max_k"},
	{"help_experimental", "Formats and layers", `int8 nvfp4 mxfp8 convrot convrot_group_size dynamic_convrot fallback fallback_block_size fallback_simple custom_layers custom_type
		custom_block_size custom_scaling_mode custom_simple custom_heur custom_full_precision_mm custom_convrot custom_convrot_group_size exclude_layers output_dtype preserve_layers
		scaling_mode block_size heur layer_config fullmatch input_scale input_scales no_normalize_scales`},
	{"help_filters", "Presets of models", `gemma4 qwen_vlm qwen35 t5xxl mistral visual generic_text anima lens flux2 distillation_large distillation_small nerf_large nerf_small radiance krea2
		ideogram4 wan hunyuan minimaxh3 qwen zimage zimage_refiner boogu ltxv2`},
	{"help_advanced", "Schedules and early stops", `lr_gamma lr_patience lr_factor lr_min lr_cooldown lr_threshold lr_adaptive_mode lr_threshold_mode lr_shape_influence early_stop_loss
		early_stop_lr early_stop_stall scale_refinement scale_optimization`},
	{"help_modes", "Other modes", `convert_fp8_scaled hp_filter full_precision_mm convert_int8_scaled make_hybrid_mxfp8 tensor_scales legacy_input_add cleanup_fp8_scaled scaled_fp8_marker actcal
		actcal_samples actcal_percentile actcal_lora actcal_seed actcal_device edit_quant remove_keys add_keys quant_filter dry_run`},
	{"help_lora", "Low-rank parts", "extract_lora lora_rank lora_target lora_depth lora_ar_threshold lora_output"},
}

// Help returns the sections that were asked for, nil if none was: all of them
// for the help as a whole.
func (c *Command) Help() []Section {
	var asked []Section
	for _, s := range sections {
		if c.Has(s.asked) || c.Has("help") {
			asked = append(asked, Section{s.title, inSection(s.names)})
		}
	}
	return asked
}

// inSection are the options of a section; no names stand for those of no other.
func inSection(names string) (list []Option) {
	if names != "" {
		for _, name := range strings.Fields(names) {
			list = append(list, *find(name))
		}
		return list
	}
	elsewhere := map[string]bool{}
	for _, s := range sections {
		for _, name := range strings.Fields(s.names) {
			elsewhere[name] = true
		}
	}
	for _, o := range options {
		if !elsewhere[o.Name()] {
			list = append(list, o)
		}
	}
	return list
}
