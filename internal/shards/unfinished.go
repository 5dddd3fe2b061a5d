package shards

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// mostPlan bounds the plan of an output that is read as a source.
const mostPlan = 64 << 20

// Unfinished is the error of a folder as a source that is an output of which not all is
// there, nil for any other: one with a plan, be it the one that keeps what is finished, or a
// store's.
func Unfinished(s source.Source) error {
	text, err := source.ReadFile(s.Tree, s.Join(s.Path, path.Join(stage.Records, PlanName)), mostPlan)
	if err != nil {
		return nil // as is almost any source
	}
	p, err := Decode(text, s.Path)
	if err != nil {
		return nil
	}
	missing := func(all []File) (names []string) {
		for _, f := range all {
			if _, err := s.Stat(s.Join(s.Path, f.Name)); errors.Is(err, fs.ErrNotExist) {
				names = append(names, f.Name)
			}
		}
		return names
	}
	of := missing(p.Shards)
	if len(of) == 0 && len(missing(p.Others)) == 0 {
		return nil
	}
	dest := s.Path
	if s.OnDisk() {
		dest = stage.DestOf(s.Path)
	}
	return p.unfinished(s.Path, dest, of)
}

// NotPlaced is the error of a path at which nothing is, but an output under way beside it;
// nil where there is none.
func NotPlaced(dest string) error {
	text, err := stage.ReadKept(dest, PlanName)
	if err != nil {
		return nil
	}
	work, err := stage.KeptPath(dest)
	if err != nil {
		return nil
	}
	p, err := Decode(text, work)
	if err != nil {
		return nil
	}
	var missing []string
	for _, f := range p.Shards {
		if _, err := stage.ReadKept(dest, stage.RecordOf(f.Name)); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, f.Name)
		}
	}
	return p.unfinished(dest, dest, missing)
}

// unfinished is the error of what is read at a place, of which shards are missing.
func (p *Plan) unfinished(place, dest string, missing []string) error {
	text := "all of its shards are there"
	if len(missing) > 0 {
		text = fmt.Sprintf("%d of %d shards are missing", len(missing), len(p.Shards))
	}
	todo := "put it in place by `tensorpress finish " + dest + "`"
	if p.Parts == 0 || len(missing) > 0 {
		todo = p.Again(missing)
	}
	return usage.SourceErrorf("%s: is an output that is not finished, %s: %s", place, text, todo)
}

// Again says what to run for some shards that are missing.
func (p *Plan) Again(names []string) string {
	if p.Parts == 0 {
		return "run quantize with the same settings and `Resume` to go on"
	}
	var parts []string
	cuts := p.Cuts(p.Parts)
	for i := range p.Parts {
		if slices.ContainsFunc(p.Shards[cuts[i]:cuts[i+1]], func(f File) bool { return slices.Contains(names, f.Name) }) {
			parts = append(parts, fmt.Sprintf("%d/%d", i+1, p.Parts))
		}
	}
	const some = 8
	text := strings.Join(parts[:min(len(parts), some)], ", ")
	if n := len(parts) - some; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return "run quantize with the same settings and `Part` " + text
}
