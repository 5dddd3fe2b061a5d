// Package tensorpress presses safetensors checkpoints into quantized ones, in
// bounded memory and with the bytes of the reference programs.
//
// [Quantize] is the main call: it reads, plans, quantizes, packs, names and
// writes. [Plan] makes the same decisions and stops before any weight is read.
// [Inspect], [Verify] and [Dequantize] take what comes out, or what the
// reference programs wrote. What they return is in package report; the arithmetic
// alone, without files, is in package quant.
package tensorpress

import (
	"context"
	"errors"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/convert"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/kernel"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/internal/verify"
	"github.com/tensorpress/tensorpress/report"
)

// Kinds of errors, for errors.Is. All others are the system's: a disk that is
// full, a file that may not be read. What would be overwritten is an fs.ErrExist
// too, and what is not there an fs.ErrNotExist. Texts name fields of options in
// backquotes.
var (
	// ErrUsage: what was asked for does not exist, contradicts itself, or would
	// overwrite something.
	ErrUsage = usage.Err
	// ErrSource: the source is damaged, inconsistent, of no supported kind, or
	// holds NaN or infinity where it is to be quantized.
	ErrSource = usage.ErrSource
	// ErrVerify: verification found a problem.
	ErrVerify = errors.New("verification failed")
)

// What calls take. The zero value of each takes the defaults.
type (
	// Options are the decisions of [Quantize].
	Options = convert.Options
	// DequantizeOptions are those of [Dequantize].
	DequantizeOptions = convert.DequantizeOptions
	// TranscodeOptions are those of [Transcode].
	TranscodeOptions = convert.TranscodeOptions
	// MigrateOptions are those of [Migrate].
	MigrateOptions = convert.MigrateOptions
	// VerifyOptions say what an output is held against.
	VerifyOptions = verify.VerifyOptions
	// Resources bound what a run takes; they are part of all of these.
	Resources = engine.Resources
	// Progress is how far a run has come.
	Progress = engine.Progress
)

// What calls return; package report has their JSON.
type (
	Report       = report.Report
	Verification = report.Verification
	Inspection   = report.Inspection
)

// Quantize writes source, quantized, to dest. Nothing is at dest before all of
// it is; an error leaves nothing behind.
func Quantize(ctx context.Context, source, dest string, o Options) (*Report, error) {
	return convert.Quantize(ctx, source, dest, o)
}

// Plan makes the decisions of [Quantize] and reads no weights. dest may be
// empty.
func Plan(source, dest string, o Options) (*Report, error) { return convert.Plan(source, dest, o) }

// Dequantize writes source to dest with every quantized layer as a plain
// tensor. Kept tensors stay as they are. Of a pipeline, the components that hold
// quantized layers are restored and all else is copied.
func Dequantize(ctx context.Context, source, dest string, o DequantizeOptions) (*Report, error) {
	return convert.Dequantize(ctx, source, dest, o)
}

// Transcode writes source, whose layers are quantized, to dest in another
// layout. Codes are moved as they are and never rounded again; where a format
// has its scales in another dtype, or a layer is quantized again, the report has
// the error that it adds.
func Transcode(ctx context.Context, source, dest string, o TranscodeOptions) (*Report, error) {
	return convert.Transcode(ctx, source, dest, o)
}

// PlanTranscode makes the decisions of [Transcode] and reads no weights. dest
// may be empty.
func PlanTranscode(source, dest string, o TranscodeOptions) (*Report, error) {
	return convert.PlanTranscode(source, dest, o)
}

// Migrate writes source, whose codes have scales as older or other programs name
// them, or whose layers describe themselves, to dest in the comfy layout as
// ComfyUI loads it today. Names, shapes of scales and metadata change; weights
// are copied byte for byte.
func Migrate(ctx context.Context, source, dest string, o MigrateOptions) (*Report, error) {
	return convert.Migrate(ctx, source, dest, o)
}

// PlanMigrate makes the decisions of [Migrate] and writes nothing. dest may be
// empty.
func PlanMigrate(source, dest string, o MigrateOptions) (*Report, error) {
	return convert.PlanMigrate(source, dest, o)
}

// Verify reads a whole checkpoint, or all of a pipeline's: is it sound, does
// every layer decode, would an application load it, and how far are its
// weights from a source's. What it finds is in the result; the error is for
// what kept it from looking.
func Verify(ctx context.Context, path string, o VerifyOptions) (*Verification, error) {
	return verify.Verify(ctx, path, o)
}

// Inspect reads headers and metadata, no weights. In a pipeline, names begin
// with the folder of their component.
func Inspect(ctx context.Context, path string) (*Inspection, error) { return verify.Inspect(ctx, path) }

// CheckSet returns an error, an [ErrUsage], if the text is no entry of
// [Options.Set].
func CheckSet(text string) error { return convert.CheckSet(text) }

// CheckPattern returns an error, an [ErrUsage], if the text is no entry of
// [Options.Keep] and [Options.Only].
func CheckPattern(text string) error { return convert.CheckPattern(text) }

// CheckCPU returns an error, an [ErrUsage], if the environment variable
// TENSORPRESS_CPU names instructions that do not exist or that this machine
// does not have: its own best ones are in use then.
func CheckCPU() error { return usage.Wrap(kernel.Refused()) }

// ReadFile reads a file that says what is to be done. What is no file (a FIFO, a
// device) or holds more than most bytes is an [ErrSource]: reading it might never
// end.
func ReadFile(path string, most int64) ([]byte, error) { return checkpoint.ReadFile(path, most) }

// The command line of convert_to_quant.
type (
	// CTQ is a command line of convert_to_quant 1.3.4, as [ParseCTQ] reads it.
	CTQ = convert.CTQ
	// CTQSection is a part of the help of convert_to_quant's command line.
	CTQSection = convert.CTQSection
	// CTQOption is an option of convert_to_quant.
	CTQOption = convert.CTQOption
)

// CTQOptions lists all options of convert_to_quant.
func CTQOptions() []CTQOption { return convert.CTQOptions() }

// ParseCTQ reads the arguments of convert_to_quant.
func ParseCTQ(args []string) (*CTQ, error) { return convert.ParseCTQ(args) }
