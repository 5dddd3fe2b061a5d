package remote

import (
	"errors"
	"fmt"
	"slices"
)

// Revoke takes an output back after its Commit: what it put there is deleted. An older one
// that it has replaced does not come back, which the error says.
func (o *storeOutput) Revoke() (err error) {
	ctx, cancel := o.clearing()
	defer cancel()
	slices.SortFunc(o.files, func(a, b *upload) int { return byRank(b, a) })
	for _, u := range o.files {
		if e := o.delete(ctx, o.keyOf(u.name)); e != nil {
			err = errors.Join(err, fmt.Errorf("could not be taken back: %w", e))
		}
	}
	if o.over {
		err = errors.Join(err, fmt.Errorf("%s: the older output is gone, and nothing is in its place", o.of.Dest))
	}
	return err
}
