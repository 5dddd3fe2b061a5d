package tensorpress

import (
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/storage"
)

// What is said of how layers are stored; package storage has the fields.
type (
	Settings = storage.Settings
	Rule     = storage.Rule
)

// Options are the decisions of [Quantize]; the zero value takes the defaults.
// Pointers are nil where nothing is said, since a config may say it then.
type Options struct {
	// Layer is how layers are stored.
	Layer Settings
	// Rules say otherwise of some: for each weight, the first rule whose pattern finds
	// its name counts.
	Rules []Rule
	// Keep and Only are regular expressions in Python's syntax, searched anywhere in
	// the full names of tensors. What Keep finds is left as it is, whatever else is
	// said; where Only is given, so is all that it does not find.
	Keep, Only []string
	// Layout is "sdnq" or "comfy"; "" is sdnq where a config.json is there, else comfy.
	Layout string

	// Preset names the model family of whose layers some are kept, see [Presets], or is
	// "none" or "generic"; "" or "auto" is the one that is recognised.
	Preset string
	// Conv and Embedding quantize those layers too, in SDNQ's dtypes.
	Conv, Embedding bool
	// SkipKeys keeps what SDNQ's own list says, in the sdnq layout; nil is true.
	SkipKeys *bool
	// MinNumel and MinChannels keep weights of fewer values, or columns. nil is 16384
	// and 32 in the sdnq layout, else none.
	MinNumel, MinChannels *int

	// Config is the path of an SDNQ config, or of a config.json that holds one, whose
	// settings are taken where Layer and Rules say nothing.
	Config string
	// Like is a quantized model whose settings are taken, layer by layer; nil for none.
	Like files.Source
	// LayerConfig is the path of a layer config of convert_to_quant's.
	LayerConfig string

	// For is "comfyui", "sdnext", "diffusers", "transformers" or "invokeai": what that
	// application would not load is an error; "" is none of them.
	For string
	// AcceptUnscaledFP8 takes 8-bit floats without any scale for plain numbers.
	AcceptUnscaledFP8 bool
	// QuantizationMetadata describes layers in the header too, in the comfy layout.
	QuantizationMetadata bool
	// ShardSize is the most bytes of weights in a file of a folder, 0 for 5 GB.
	ShardSize int64
	// Force replaces dest if it is an output and holds nothing else; a sink that is no
	// path is told to.
	Force bool
	// CopyWeights copies weight files that the output does not describe, too.
	CopyWeights bool
	// Measure adds the error of every layer to the report: what was written is read
	// once more, with the source, before it is at dest.
	Measure bool

	// Threads is how many tiles are worked on at a time, 0 for one a core. There are
	// fewer where Memory leaves less than 5 MiB for each.
	Threads int
	// Memory bounds the peak memory of the process in bytes, 0 for 256 MiB.
	Memory int64
	// Progress is called as tiles are done, never twice at a time, with bytes of the
	// source.
	Progress func(done, total int64)
}

// DequantizeOptions are the decisions of [Dequantize].
type DequantizeOptions struct {
	// Dtype of the weights that were quantized: "bf16", "f16" or "f32"; "" for what
	// the metadata or the config says, else that of the kept tensors.
	Dtype string
	// Source is what the checkpoint was made from, if SDNQ's packed weights with a
	// single scale do not tell their shapes; nil for none.
	Source files.Source

	// The others are those of [Options].
	ShardSize   int64
	Force       bool
	CopyWeights bool
	Threads     int
	Memory      int64
	Progress    func(done, total int64)
}

// TranscodeOptions are the decisions of [Transcode].
type TranscodeOptions struct {
	// Layout is where the layers are to go, "sdnq" or "comfy".
	Layout string
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
	Threads     int
	Memory      int64
	Progress    func(done, total int64)
}

// VerifyOptions say what [Verify] holds an output against.
type VerifyOptions struct {
	// Source is the checkpoint it was made from, nil for none.
	Source files.Source
	// For is an application that must load it, as in [Options]; "" for none.
	For string
	// MaxRelMSE makes a layer with a greater relative error a problem, nil for none.
	MaxRelMSE *float64

	// The others are those of [Options].
	Threads  int
	Memory   int64
	Progress func(done, total int64)
}
