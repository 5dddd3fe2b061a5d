package convert

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/bundle"
	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/pattern"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/preset"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
)

// MigrateOptions are tensorpress.MigrateOptions, field by field.
type MigrateOptions struct {
	Only                 string
	AddKeys              string
	RemoveKeys           []string
	DropIgnored          bool
	InputScale           bool
	QuantizationMetadata bool
	StripPrefixes        []string
	For                  string
	ShardSize            int64
	Force                bool
	CopyWeights          bool
	Hash                 bool
	Threads              int
	Memory               int64
	Progress             func(done, total int64)
}

func (o MigrateOptions) resources() engine.Resources {
	return engine.Resources{Threads: o.Threads, Memory: o.Memory, Progress: o.Progress}
}

// Migrate writes source, whose 8-bit codes have scales as older or other
// programs name them, or whose layers describe themselves, to dest in the comfy
// layout as ComfyUI loads it today. Names, shapes of scales and metadata change;
// weights are copied byte for byte.
func Migrate(ctx context.Context, from files.Source, dest files.Sink, o MigrateOptions) (*report.Report, error) {
	start := time.Now()
	j, err := readMigrated(ctx, from, dest, o)
	if err != nil {
		return nil, err
	}
	defer j.Close()
	w := j.copied(dest, o.Force, o.resources(), start)
	w.hash = o.Hash
	return j.write(ctx, w)
}

// PlanMigrate makes the decisions of [Migrate] and writes nothing. dest may be
// nil.
func PlanMigrate(ctx context.Context, from files.Source, dest files.Sink, o MigrateOptions) (*report.Report, error) {
	j, err := readMigrated(ctx, from, dest, o)
	return planned(ctx, j, err, dest, o.Force)
}

func readMigrated(ctx context.Context, from files.Source, to files.Sink, o MigrateOptions) (*job, error) {
	dest := nameOf(to)
	how, err := o.how()
	if err != nil {
		return nil, err
	}
	renamed, wrapped := false, ""
	j, err := readDecided(ctx, source.Of(ctx, from), dest, o.CopyWeights, func(one *bundle.Model) (err error) {
		how := how
		if how.Renamed, err = o.renames(one.Checkpoint); err != nil {
			return err
		}
		renamed = renamed || how.Renamed
		wrapped = cmp.Or(wrapped, plan.Wrapped(one.Checkpoint.Tensors))
		one.Plan, err = o.plan(one.Checkpoint, bundle.Within(dest, one.Folder), how)
		return err
	})
	if errors.Is(err, bundle.ErrNothingDecided) && len(o.StripPrefixes) > 0 && !renamed {
		return nil, usage.Errorf("`StripPrefixes` %s: no name of %s begins so", strings.Join(o.StripPrefixes, ", "), from)
	}
	if errors.Is(err, bundle.ErrNothingDecided) && wrapped != "" {
		return nil, fmt.Errorf("%w; %s", err, wrapped)
	}
	return j, err
}

// unwrap takes the prefixes off a name.
func (o MigrateOptions) unwrap(name string) string { return preset.Unwrap(name, o.StripPrefixes) }

// renames reports whether names of a checkpoint change.
func (o MigrateOptions) renames(c *checkpoint.Checkpoint) (bool, error) {
	if slices.Contains(o.StripPrefixes, "") {
		return false, usage.Errorf("`StripPrefixes`: want what names begin with")
	}
	return slices.ContainsFunc(c.Tensors, func(t checkpoint.Tensor) bool { return o.unwrap(t.Name) != t.Name }), nil
}

// how reads the words.
func (o MigrateOptions) how() (how plan.MigrateOptions, err error) {
	how = plan.MigrateOptions{Remove: o.RemoveKeys, DropIgnored: o.DropIgnored, InputScale: o.InputScale, Header: o.QuantizationMetadata}
	if o.Only != "" && o.AddKeys == "" && o.RemoveKeys == nil && !o.InputScale && !o.DropIgnored {
		return how, usage.Errorf("`Only` is for `AddKeys`, `RemoveKeys`, `InputScale` and `DropIgnored`")
	}
	if o.Only != "" {
		if how.Only, err = pattern.Compile(o.Only); err != nil {
			return how, usage.Wrap(err)
		}
	}
	if o.AddKeys != "" {
		if how.Add, err = pyjson.ParseObject([]byte(o.AddKeys)); err != nil {
			return how, usage.Errorf("`AddKeys` %s: want a JSON object: %w", o.AddKeys, err)
		}
	}
	return how, nil
}

// plan returns nil where nothing is quantized and nothing renamed, or nothing
// is asked for but names that are not there.
func (o MigrateOptions) plan(c *checkpoint.Checkpoint, dest string, how plan.MigrateOptions) (*plan.Plan, error) {
	if len(o.StripPrefixes) > 0 && !how.Renamed && !how.Edits() {
		return nil, nil
	}
	m, err := bundle.ReadModel(c, nil)
	if err != nil || len(m.Layers) == 0 && !how.Renamed {
		return nil, err
	}
	config := m.Config
	if how.Renamed {
		if err := layout.Rename(c, o.unwrap); err != nil {
			return nil, usage.Errorf("`StripPrefixes`: %w", err)
		}
		if config != nil {
			config = config.Renamed(o.unwrap)
		} else if m, err = bundle.ReadModel(c, nil); err != nil {
			return nil, err
		}
	}
	p := plan.Options{Layout: layout.Comfy}
	if p.Output, err = outputOf(c, dest, o.ShardSize); err != nil {
		return nil, err
	}
	if o.For != "" {
		if p.For, err = app.ByName(o.For); err != nil {
			return nil, err
		}
	}
	if how.Renamed && !how.Edits() && (config != nil || len(m.Layers) == 0) {
		return plan.Renamed(c.Tensors, config, p)
	}
	made, err := plan.Migrate(m, how, p)
	if err != nil {
		return nil, err
	}
	noteFormer(m, made, p.Output.Folder)
	return made, nil
}
