package convert

import (
	"context"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
)

// readFitting is readPlain with the most bits a value at which all weights fit the size
// that was asked for.
func readFitting(ctx context.Context, from files.Source, dest files.Sink, o request) (*job, error) {
	if err := o.checkFit(); err != nil {
		return nil, err
	}
	a, err := app.ByName(o.For)
	if err != nil {
		return nil, err
	}
	var least int64
	for _, best := range a.Choices() {
		o.Layer.Bits = &best.Bits
		j, err := readPlain(ctx, from, dest, o)
		if err != nil {
			return nil, err
		}
		if least = j.BytesOut(); least <= o.Fit {
			return j, nil
		}
		if err := j.Close(); err != nil {
			return nil, err
		}
	}
	return nil, usage.Errorf("`Fit` %s: the least that %s loads takes %s", report.Size(o.Fit), a.Name, report.Size(least))
}

func (o Options) checkFit() error {
	if o.For == "" {
		return usage.Errorf("`Fit` chooses what an application loads: name it by `For`")
	}
	if o.chooses() || o.Layer.Bits != nil {
		return usage.Errorf("`Fit` chooses how many bits a value takes, and so do `Bits` and a budget: give one")
	}
	if o.namesDtype() {
		return usage.Errorf("`Fit` chooses a dtype: leave out what names one")
	}
	return nil
}
