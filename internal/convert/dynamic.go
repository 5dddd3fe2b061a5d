package convert

import (
	"context"

	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/plan"
)

// searchDtypes measures, for every layer whose dtype is chosen dynamically, the dtypes
// from its own on, and plans again with the first whose loss is small enough.
func (j *job) searchDtypes(ctx context.Context) error {
	chosen := map[string]map[string]plan.Choice{}
	for _, one := range j.Models {
		found, err := engine.SearchDtypes(ctx, one.Checkpoint, one.Plan, j.resources())
		if err != nil {
			return err
		}
		if len(found) > 0 {
			chosen[one.Folder] = found
		}
	}
	if len(chosen) == 0 {
		return nil
	}
	return j.plan(ctx, chosen)
}
