package tensorpress

import (
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/storage"
)

// What is said of how layers are stored; package storage has the fields.
type (
	Settings  = storage.Settings
	Rule      = storage.Rule
	Candidate = storage.Candidate
)

// Options are the decisions of [Quantize]; the zero value takes the defaults. A nil
// pointer leaves a decision to the config or, without one, to the default.
type Options struct {
	// Layer says how layers are stored.
	Layer Settings
	// Rules override Layer for some weights: for each weight, the first rule whose
	// pattern finds its name applies.
	Rules []Rule
	// Keep and Only are regular expressions in Python's syntax, searched anywhere in
	// the full names of tensors. A tensor that Keep finds is left as it is, whatever
	// the other options say; with Only, so is every tensor that Only does not find.
	Keep, Only []string
	// Layout is "sdnq" or "comfy"; "" is sdnq if the source has a config.json, else comfy.
	Layout string
	// Names is whose names the output has: "comfyui" or "diffusers"; "" or "keep" leaves
	// them. All that is said of layers is of those names. With ComfyUI's the output is
	// one file, by default in the comfy layout, and of a pipeline it holds the diffusion
	// model alone.
	Names string

	// Preset names the model family that decides which layers are kept, see [Presets],
	// or is "none" or "generic"; "" or "auto" recognises the family.
	Preset string
	// Conv and Embedding quantize convolutions and embeddings too, in SDNQ's dtypes.
	Conv, Embedding bool
	// SkipKeys keeps the layers in SDNQ's own list for the family, in the sdnq layout;
	// nil is true.
	SkipKeys *bool
	// MinNumel and MinChannels keep weights with fewer values, or columns. nil is 16384
	// and 32 in the sdnq layout, and no minimum in the comfy layout.
	MinNumel, MinChannels *int

	// Config is the path of an SDNQ config, or of a config.json that holds one. Its
	// settings apply where Layer and Rules say nothing.
	Config string
	// Like is a quantized model whose settings are copied, layer by layer; nil for
	// none.
	Like files.Source
	// LayerConfig is the path of a layer config in convert_to_quant's format.
	LayerConfig string
	// Importance is the path of a file with second moments of the inputs of layers, by
	// which Search weighs errors: safetensors with a tensor X.input_moment for each layer
	// X, or an importance matrix of llama.cpp's.
	Importance string
	// Lora are adapters that are merged into the weights in single precision before these
	// are rounded, in this order: the path of a file, or of the folder that PEFT wrote, and
	// after an equals sign the strength, which is 1 where it is left out. Kept tensors that
	// an adapter changes are rounded to their own dtype.
	Lora []string
	// LoraPartial leaves out what of an adapter fits no tensor, and says so; else that is
	// an error.
	LoraPartial bool

	// For names the application that must be able to load the output: "comfyui",
	// "sdnext", "diffusers", "transformers" or "invokeai"; "" for none. A layer that it
	// would not load is an error. With Bits in Layer and nothing that names a dtype, layers
	// are stored in the best way that it loads at that many bits a value.
	For string
	// Fit chooses, with For, the most bits a value at which all weights together take at
	// most that many bytes; 0 for no choice.
	Fit int64
	// AcceptUnscaledFP8 treats 8-bit floats without a scale as plain numbers.
	AcceptUnscaledFP8 bool
	// QuantizationMetadata describes the layers in the file's header as well, in the comfy
	// layout.
	QuantizationMetadata bool
	// ShardSize is the most bytes of weights in one file of a folder, 0 for 5 GB.
	ShardSize int64
	// Force replaces dest if it is an output and holds nothing else. A sink other than
	// a path is told to replace what it has.
	Force bool
	// CopyWeights also copies weight files that the output does not describe.
	CopyWeights bool
	// Resume keeps the weight files of a folder that are finished, in a hidden folder beside
	// it, when the run ends before the output is whole, and goes on with those that are kept
	// by a run of the same source, options and version. The bytes are those of one run.
	Resume bool
	// Part and Parts divide the weight files of a folder into so many parts, of about as many
	// bytes each, and write those of one, from 1 on, which are kept as with Resume. [Finish]
	// puts the output in place once all are there. 0 and 0 write all. A part may be written
	// again, and by several runs at once. What measures the whole model, a budget, Fit,
	// Dynamic or Measure, does not go with a part.
	Part, Parts int
	// Measure adds the error of every layer to the report: what was written is read
	// once more and compared with the source, before it appears at dest.
	Measure bool
	// Hash adds the sha256 of all files that are read or written to the report. Sources are
	// read once more for it, at the same time.
	Hash bool

	// Budget is how many bytes the output's weights may take, headers included;
	// BudgetShare names it as a part of the source's, and TargetBPW in bits for each value
	// of all tensors. Where one is given, each layer that Rules give no dtype is stored as
	// one of Menu, such that all lose least together: the sum of the layers' relative
	// errors, each as often as it has values. 0 names no size.
	Budget      int64
	BudgetShare float64
	TargetBPW   float64
	// Menu has the ways to store layers among which a budget chooses; nil for those of
	// Measured, else for what For, or the reader of the layout, loads. Layer goes for all
	// of them and has no dtype.
	Menu []Candidate
	// Measured is what [Measure] found in the source; nil measures it now.
	Measured *Measurement
	// Fingerprint, if not "", is that of the only source to be taken, as in a
	// [Measurement].
	Fingerprint string

	// Threads is how many tiles are worked on at a time, 0 for one a core. There are
	// fewer where Memory leaves less than 5 MiB for each.
	Threads int
	// Memory bounds the peak memory of the process in bytes, 0 for 256 MiB.
	Memory int64
	// Progress is called as tiles are done, never twice at a time, with bytes of the
	// source.
	Progress func(done, total int64)
}

// FinishOptions are for [Finish]; they are those of [Options].
type FinishOptions struct {
	Force    bool
	Threads  int
	Progress func(done, total int64)
}

// Output is one of the outputs of [QuantizeMany].
type Output struct {
	Dest files.Sink
	// Options are those of [Quantize]. Threads, Memory and Progress are the run's, of
	// [ManyOptions].
	Options
}

// ManyOptions are the decisions of [QuantizeMany] that are of all outputs.
type ManyOptions struct {
	// KeepGoing puts in place the outputs that succeed where others fail. Else all are put
	// in place or none.
	KeepGoing bool

	// The others are those of [Options]. Progress counts the bytes of the source as often
	// as there are outputs.
	Threads  int
	Memory   int64
	Progress func(done, total int64)
}

// DequantizeOptions are the decisions of [Dequantize].
type DequantizeOptions struct {
	// Dtype of the weights that were quantized: "bf16", "f16" or "f32"; "" for what
	// the metadata or the config says, else that of the kept tensors.
	Dtype string
	// Names is whose names the output has, as in [Options].
	Names string
	// Source is what the checkpoint was made from, if SDNQ's packed weights with a
	// single scale do not tell their shapes; nil for none.
	Source files.Source

	// The others are those of [Options]. What adapters change of tensors that were not
	// quantized is rounded to these tensors' own dtypes.
	Lora        []string
	LoraPartial bool
	ShardSize   int64
	Force       bool
	CopyWeights bool
	Hash        bool
	Threads     int
	Memory      int64
	Progress    func(done, total int64)
}

// TranscodeOptions are the decisions of [Transcode].
type TranscodeOptions struct {
	// Layout is where the layers are to go, "sdnq" or "comfy".
	Layout string
	// Names is whose names the output has, as in [Options]. Where layers become one, or
	// are split, their codes and scales move with their rows; which cannot is an error
	// without Requantize. With ComfyUI's, layers of SDNQ's that no format of ComfyUI's
	// holds stay as they are, unless Requantize or For says otherwise.
	Names string
	// Rename keeps SDNQ's layers as they are in the comfy layout, where each
	// describes itself, instead of moving them to formats of ComfyUI's.
	Rename bool
	// Requantize quantizes layers again that cannot move, from the values that they
	// restore to, in the nearest format.
	Requantize bool
	// Scale "row" lets float8 with a scale a row become float8_e4m3fn_rowwise, which
	// stock ComfyUI does not load; "" does not.
	Scale string
	// ScaleDtype is that of awq_w4a16's scales: "bf16", "f16" or "f32", "" for bf16.
	ScaleDtype string

	// The others are those of [Options].
	For         string
	ShardSize   int64
	Force       bool
	CopyWeights bool
	Hash        bool
	Threads     int
	Memory      int64
	Progress    func(done, total int64)
}

// MigrateOptions are what [Migrate] changes beyond what has to.
type MigrateOptions struct {
	// Only is a pattern of the layers that AddKeys, RemoveKeys, DropIgnored and
	// InputScale are for, "" for all.
	Only string
	// AddKeys are keys for the JSON of layers, as a JSON object; RemoveKeys are those
	// that it loses.
	AddKeys    string
	RemoveKeys []string
	// DropIgnored leaves out companions that the layers' formats ignore.
	DropIgnored bool
	// InputScale gives float8 layers an input scale of 1 where they have none.
	InputScale bool
	// QuantizationMetadata describes the layers in the header too.
	QuantizationMetadata bool
	// StripPrefixes are taken off the beginnings of names, one after the other; layers
	// need not be quantized then.
	StripPrefixes []string

	// The others are those of [Options].
	For         string
	ShardSize   int64
	Force       bool
	CopyWeights bool
	Hash        bool
	Threads     int
	Memory      int64
	Progress    func(done, total int64)
}

// SplitOptions are for [Split]; they are those of [Options].
type SplitOptions struct {
	Force    bool
	Hash     bool
	Threads  int
	Memory   int64
	Progress func(done, total int64)
}

// JoinPart is a part that [Join] takes: a file, a folder, a weight index, or all of a
// pipeline.
type JoinPart struct {
	// Part says which part it is: "model", "vae", "rest", or a text encoder as ComfyUI calls
	// it ("clip_l", "t5xxl", …); "" for what its tensors show.
	Part   string
	Source files.Source
}

// JoinOptions are for [Join].
type JoinOptions struct {
	// Names is whose names the shards of one model get, as in [Options]. In a checkpoint of
	// parts they are always ComfyUI's.
	Names string

	// The others are those of [Options].
	Force    bool
	Hash     bool
	Threads  int
	Memory   int64
	Progress func(done, total int64)
}

// VerifyOptions say what [Verify] holds an output against.
type VerifyOptions struct {
	// Source is the checkpoint it was made from, nil for none.
	Source files.Source
	// Lora are adapters that were merged into Source, and LoraPartial takes what of them
	// fits, as in [Options].
	Lora        []string
	LoraPartial bool
	// For is an application that must load it, as in [Options]; "" for none.
	For string
	// MaxRelMSE makes a layer with a greater relative error a problem, nil for none.
	MaxRelMSE *float64

	// The others are those of [Options].
	Threads  int
	Memory   int64
	Progress func(done, total int64)
}

// HashOptions are for [Hash]; they are those of [Options].
type HashOptions struct {
	Threads  int
	Memory   int64
	Progress func(done, total int64)
}

// DiffOptions say what [Diff] counts as the same.
type DiffOptions struct {
	// Bytes asks for the same bytes of every tensor and the same entries of the headers;
	// else the same values are enough, whatever they are stored as.
	Bytes bool
	// MaxRelMSE takes values for the same up to that relative error, as in a [report.Error].
	MaxRelMSE float64

	// The others are those of [Options].
	Threads  int
	Memory   int64
	Progress func(done, total int64)
}
