// Package tensorpress presses safetensors checkpoints into quantized ones, in
// bounded memory and with the bytes of the reference programs.
//
//	report, err := tensorpress.Quantize(ctx, files.Dir("model.safetensors"), files.Dir("small.safetensors"), tensorpress.Options{
//		Layer:   tensorpress.Settings{Dtype: "uint4", GroupSize: new(64)},
//		Threads: 2,
//	})
//
// [Quantize] is the main call: it reads, plans, quantizes, packs, names and
// writes. What it reads from and writes to is a path, as a [files.Dir], or anything
// else that package files has, or lets a program have. [Plan] makes the same decisions
// and stops before any weight is read.
// [Inspect], [Verify] and [Dequantize] take what comes out, or what the
// reference programs wrote. The zero value of any options takes the defaults;
// package storage has what can be said of layers, package report what the calls
// return, and package quant the arithmetic alone, without files.
package tensorpress

import (
	"context"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/convert"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/internal/verify"
	"github.com/tensorpress/tensorpress/report"
)

// Kinds of errors, for errors.Is. All others are the system's: a disk that is
// full, a file that may not be read. What would be overwritten is an fs.ErrExist
// too, and what is not there an fs.ErrNotExist. Texts name fields of options in
// backquotes.
var (
	// ErrUsage says that what was asked for does not exist, contradicts itself, or would
	// overwrite something.
	ErrUsage = usage.Err
	// ErrSource says that the source is damaged, inconsistent or of no supported kind,
	// or holds NaN or infinity in a weight to be quantized.
	ErrSource = usage.ErrSource
)

// The results of calls; package report documents their fields and their JSON.
type (
	Report       = report.Report
	Verification = report.Verification
	Inspection   = report.Inspection
	Measurement  = report.Measurement
	Difference   = report.Difference
	Assembly     = report.Assembly
	Finished     = report.Finished
	Outputs      = report.Outputs
)

// Quantize reads source, quantizes its weights and writes the result to dest. Nothing
// appears at dest before all of it is written; an error leaves nothing behind, but what
// Resume and Part of the options keep.
func Quantize(ctx context.Context, source files.Source, dest files.Sink, o Options) (*Report, error) {
	return convert.Quantize(ctx, source, dest, convert.Options(o))
}

// Finish puts an output in place of which all parts were written, see Part of [Options]: it
// checks that all are there, by their bytes, and of one plan. Where dest is in place
// already and no part is there, it has nothing to do and says so.
func Finish(ctx context.Context, dest files.Sink, o FinishOptions) (*Finished, error) {
	return convert.Finish(ctx, dest, convert.FinishOptions(o))
}

// QuantizeMany quantizes source in several ways at once: of every tensor that is read, each
// output takes what it needs, so that the source is read about as often as for one of them
// alone. Every output has the bytes that [Quantize] gives it. All are put in place, or
// none; with o.KeepGoing those that succeed are, and the result is there beside an error
// that joins those of the others.
func QuantizeMany(ctx context.Context, source files.Source, outputs []Output, o ManyOptions) (*Outputs, error) {
	return convert.QuantizeMany(ctx, source, manyOutputs(outputs), convert.ManyOptions(o))
}

// PlanMany makes the decisions of [QuantizeMany], as [Plan] does. The destinations may be
// nil.
func PlanMany(ctx context.Context, source files.Source, outputs []Output, o ManyOptions) (*Outputs, error) {
	return convert.PlanMany(ctx, source, manyOutputs(outputs), convert.ManyOptions(o))
}

func manyOutputs(outputs []Output) (all []convert.Output) {
	for _, one := range outputs {
		all = append(all, convert.Output{Dest: one.Dest, Options: convert.Options(one.Options)})
	}
	return all
}

// Plan makes the decisions of [Quantize] and reads no weights, unless a budget needs them
// to be measured. dest may be nil.
func Plan(ctx context.Context, source files.Source, dest files.Sink, o Options) (*Report, error) {
	return convert.Plan(ctx, source, dest, convert.Options(o))
}

// Measure reads the weights of source and finds, for every layer and every entry of
// o.Menu, the error and the size. With the result as Measured, [Plan] and [Quantize] solve
// for any budget at once.
func Measure(ctx context.Context, source files.Source, o Options) (*Measurement, error) {
	return convert.Measure(ctx, source, convert.Options(o))
}

// ParseMenu reads a menu as the command takes it: the name of an application, for the best
// of each size that it loads, or entries with commas between them, each a dtype, with
// settings after colons, or keep.
//
//	uint4:group-size=32:hadamard,int8,keep
func ParseMenu(text string) ([]Candidate, error) { return convert.ParseMenu(text) }

// Dequantize writes source to dest with every quantized layer restored to a plain
// tensor. All other tensors stay as they are. Of a pipeline, the components with
// quantized layers are restored, and everything else is copied.
func Dequantize(ctx context.Context, source files.Source, dest files.Sink, o DequantizeOptions) (*Report, error) {
	return convert.Dequantize(ctx, source, dest, convert.DequantizeOptions(o))
}

// PlanDequantize makes the decisions of [Dequantize] and reads no weights. dest
// may be nil.
func PlanDequantize(ctx context.Context, source files.Source, dest files.Sink, o DequantizeOptions) (*Report, error) {
	return convert.PlanDequantize(ctx, source, dest, convert.DequantizeOptions(o))
}

// Transcode writes source, whose layers are quantized, to dest in the other layout.
// Codes are moved as they are and never rounded again. If a format stores its scales in
// another dtype, or a layer is quantized again, the report has the error that this
// adds.
func Transcode(ctx context.Context, source files.Source, dest files.Sink, o TranscodeOptions) (*Report, error) {
	return convert.Transcode(ctx, source, dest, convert.TranscodeOptions(o))
}

// PlanTranscode makes the decisions of [Transcode] and reads no weights. dest
// may be nil.
func PlanTranscode(ctx context.Context, source files.Source, dest files.Sink, o TranscodeOptions) (*Report, error) {
	return convert.PlanTranscode(ctx, source, dest, convert.TranscodeOptions(o))
}

// Migrate writes source to dest in the comfy layout as ComfyUI loads it today. The
// layers of source describe themselves, or have scales under the names of older or
// other programs. Names, shapes of scales and metadata change; codes are copied byte
// for byte.
func Migrate(ctx context.Context, source files.Source, dest files.Sink, o MigrateOptions) (*Report, error) {
	return convert.Migrate(ctx, source, dest, convert.MigrateOptions(o))
}

// PlanMigrate makes the decisions of [Migrate] and writes nothing. dest may be
// nil.
func PlanMigrate(ctx context.Context, source files.Source, dest files.Sink, o MigrateOptions) (*Report, error) {
	return convert.PlanMigrate(ctx, source, dest, convert.MigrateOptions(o))
}

// Split writes each part of an all-in-one checkpoint for ComfyUI, the diffusion model, the
// text encoders and the VAE, into a file of its own in the folder dest, under the names by
// which ComfyUI loads it. Tensors are copied.
func Split(ctx context.Context, source files.Source, dest files.Sink, o SplitOptions) (*Assembly, error) {
	return convert.Split(ctx, source, dest, convert.SplitOptions(o))
}

// PlanSplit makes the decisions of [Split] and writes nothing. dest may be nil.
func PlanSplit(ctx context.Context, source files.Source, dest files.Sink, o SplitOptions) (*Assembly, error) {
	return convert.PlanSplit(ctx, source, dest, convert.SplitOptions(o))
}

// Join writes parts into one checkpoint for ComfyUI, or the shards of one model into one
// file. Tensors are copied.
func Join(ctx context.Context, parts []JoinPart, dest files.Sink, o JoinOptions) (*Assembly, error) {
	return convert.Join(ctx, joinParts(parts), dest, convert.JoinOptions(o))
}

// PlanJoin makes the decisions of [Join] and writes nothing. dest may be nil.
func PlanJoin(ctx context.Context, parts []JoinPart, dest files.Sink, o JoinOptions) (*Assembly, error) {
	return convert.PlanJoin(ctx, joinParts(parts), dest, convert.JoinOptions(o))
}

func joinParts(parts []JoinPart) (all []convert.JoinPart) {
	for _, p := range parts {
		all = append(all, convert.JoinPart(p))
	}
	return all
}

// Verify reads a whole checkpoint, or all of a pipeline: is it sound, does every layer
// decode, would an application load it, and how far are its weights from those of a
// source. The findings are in the result; an error says what prevented looking.
func Verify(ctx context.Context, checkpoint files.Source, o VerifyOptions) (*Verification, error) {
	return verify.Verify(ctx, checkpoint, verify.Options(o))
}

// Diff compares two checkpoints, tensor by tensor: files, shards, folders or pipelines,
// quantized or not. Where names are ComfyUI's in one and diffusers' in the other, they
// are matched.
func Diff(ctx context.Context, a, b files.Source, o DiffOptions) (*Difference, error) {
	return verify.Diff(ctx, a, b, verify.DiffOptions(o))
}

// Inspect reads headers and metadata, but no weights. Of a pipeline, the names begin
// with the folder of the component.
func Inspect(ctx context.Context, checkpoint files.Source) (*Inspection, error) {
	return verify.Inspect(ctx, checkpoint)
}

// Hash is [Inspect] with the sha256 of each tensor's bytes, for which it reads the whole
// checkpoint once.
func Hash(ctx context.Context, checkpoint files.Source, o HashOptions) (*Inspection, error) {
	return verify.Hash(ctx, checkpoint, verify.HashOptions(o))
}
