// Package shards keeps what is finished of an output until all of it is there: its weight
// files, the shards, and what stands beside them. A run can go on where another was ended,
// and several runs can write a part each, at the same time, on machines that share nothing
// but the place. All of them make the same plan, which is kept too; a shard is finished
// when a record of its bytes is there.
package shards

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// PlanName is what the plan is called among the records.
const PlanName = "plan.json"

// File is a file that the output will consist of.
type File struct {
	Name  string `json:"name"` // a slash path
	Bytes int64  `json:"bytes"`
}

// Plan is what all runs for an output have in common. It has nothing of how a source is
// reached: no address, no token.
type Plan struct {
	Format   int               `json:"format"` // 1
	Version  string            `json:"version"`
	Source   string            `json:"source"`   // fingerprint
	Settings string            `json:"settings"` // fingerprint of all that is decided
	Options  map[string]string `json:"options"`  // fingerprints of what was said, by the fields of the options
	Shards   []File            `json:"shards"`   // in the order of the output
	Others   []File            `json:"others"`   // the files beside them
	Stems    map[string]string `json:"stems"`    // of weights, by the folder of their model
	// Parts is into how many the first run divided it, 0 for one that writes all. Like Options
	// it may differ between runs for one output.
	Parts int `json:"parts"`
	// Next is how the output is loaded, as whoever makes it says, for who puts it in place.
	// It may differ likewise, and older plans have none.
	Next json.RawMessage `json:"next,omitempty"`
}

// MostParts bounds into how many parts an output is divided.
const MostParts = 100_000

// Format is the format of plans that this program writes.
const Format = 1

// ID tells a plan from others.
func (p *Plan) ID() string {
	one := *p
	one.Parts, one.Options, one.Next = 0, nil, nil
	text, _ := json.Marshal(one) // of texts and numbers
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Encode is the plan as it is kept.
func (p *Plan) Encode() []byte {
	text, _ := json.MarshalIndent(p, "", "  ")
	return append(text, '\n')
}

// Decode reads a plan; where says where it lies.
func Decode(text []byte, where string) (*Plan, error) {
	p := &Plan{}
	if err := json.Unmarshal(text, p); err != nil || p.Format < 1 || len(p.Shards) == 0 || p.strange() {
		return nil, usage.Errorf("%s: its %s is none of tensorpress's: delete the folder to begin anew", where, PlanName)
	}
	if p.Format > Format {
		return nil, usage.Errorf("%s is of a newer tensorpress, %s: go on with that, or delete it to begin anew", where, p.Version)
	}
	return p, nil
}

// strange reports whether a plan has what none has: names that lead elsewhere or stand there
// twice, or numbers that cannot be, as their sum cannot.
func (p *Plan) strange() bool {
	seen, left := map[string]bool{}, int64(math.MaxInt64/2)
	return p.Parts < 0 || p.Parts > MostParts || slices.ContainsFunc(slices.Concat(p.Shards, p.Others), func(f File) bool {
		again := seen[f.Name]
		seen[f.Name] = true
		left -= max(f.Bytes, 0)
		return again || f.Bytes < 0 || left < 0 || !fs.ValidPath(f.Name)
	})
}

// Contents are those of the output.
func (p *Plan) Contents() stage.Contents {
	c := stage.Contents{Stems: p.Stems}
	for _, f := range slices.Concat(p.Shards, p.Others) {
		c.Files = append(c.Files, f.Name)
	}
	return c
}

// Differs is the error of a plan that is not the one that is kept: it says what differs.
func (p *Plan) Differs(kept *Plan, where, dest string) error {
	if p.ID() == kept.ID() {
		return nil
	}
	var what string
	switch {
	case p.Version != kept.Version:
		what = "by tensorpress " + kept.Version + ", and this is " + p.Version
	case p.Source != kept.Source:
		what = "of another source, or of this one before it changed"
	default:
		what = "with other settings" + p.said(kept)
	}
	return usage.Errorf("%s keeps what is finished of %s %s: run the same again to go on with that, or delete it to begin anew", where, dest, what)
}

// said names the options that are not those of a plan.
func (p *Plan) said(kept *Plan) string {
	var names []string
	all := maps.Clone(kept.Options)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, p.Options)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if p.Options[name] != kept.Options[name] {
			names = append(names, "`"+name+"`")
		}
	}
	if len(names) == 0 {
		return ""
	}
	return " (" + strings.Join(names, ", ") + ")"
}

// Part returns which shards are of part i of n, from 1 on: a run of them, from one to
// before another.
func (p *Plan) Part(i, n int) (from, to int) {
	cuts := p.Cuts(n)
	return cuts[i-1], cuts[i]
}

// Cuts are the shards with which each of n parts begins, and the number of shards at the
// end. No part is larger than another by more than the largest shard. Such cuts exist
// whatever the sizes are (Bárány and Grinberg, Block partitions of sequences): with x the
// least bytes of a part and m those of the largest shard, all parts can have x to x+m. The
// shards with which part k may end are neighbours, since those that follow from one and from
// the next overlap: so it is enough to know the first and the last of them.
func (p *Plan) Cuts(n int) []int {
	sums := make([]int64, len(p.Shards)+1) // of the shards before
	var most int64
	for i, f := range p.Shards {
		sums[i+1], most = sums[i]+f.Bytes, max(most, f.Bytes)
	}
	all := len(p.Shards)
	total := sums[all]
	ends := func(x int64) (first, last []int) { // of each part, "all+1" for none
		first, last = make([]int, n+1), make([]int, n+1)
		for k := 1; k <= n; k++ {
			first[k] = all + 1
			if first[k-1] <= all {
				first[k], _ = slices.BinarySearch(sums, sums[first[k-1]]+x)
			}
			beyond, _ := slices.BinarySearch(sums, sums[last[k-1]]+x+most+1)
			last[k] = beyond - 1
		}
		return first, last
	}
	low, high := int64(0), total/int64(n)+1 // the greatest x by which n parts come no further than the end
	for high-low > 1 {
		x := (low + high) / 2
		if first, _ := ends(x); first[n] <= all {
			low = x
		} else {
			high = x
		}
	}
	first, last := ends(low)
	cuts := make([]int, n+1)
	cuts[n] = all
	for k := n - 1; k > 0; k-- { // the nearest to equal parts of those from which the next follows
		from, _ := slices.BinarySearch(sums, sums[cuts[k+1]]-low-most)
		beyond, _ := slices.BinarySearch(sums, sums[cuts[k+1]]-low+1)
		least, greatest := max(from, first[k]), min(beyond-1, last[k], cuts[k+1])
		best, _ := slices.BinarySearch(sums, int64(float64(total)*(float64(k)/float64(n))))
		cuts[k] = min(max(best, least), greatest)
	}
	return cuts
}

// Record says that a file is finished, and what is in it.
type Record struct {
	File
	SHA256 string `json:"sha256"`
	Plan   string `json:"plan"` // the [Plan.ID] by which it was made
	// Stored is what a store states of the object, "" on disk.
	Stored string `json:"stored,omitempty"`
}

// Sink is a place where what is finished can be kept.
type Sink interface {
	files.Sink
	// Kept is the plan of what is kept there, and the names of the shards that have a record,
	// which is not checked. The error is an [io/fs.ErrNotExist] where nothing is.
	Kept(ctx context.Context) (p *Plan, finished []string, err error)
	// Keep begins or continues an output. Where another plan is kept by which nothing is
	// finished it is forgotten; else that is an error, see [Plan.Differs]. Alone means that
	// no other run that is alone may be at work; it is asked for by whoever commits.
	Keep(ctx context.Context, o stage.Output, p *Plan, alone bool) (Work, error)
	// Whole reports whether an output is in place, and clears away what a run that was killed
	// right then has left. It is called where nothing is kept.
	Whole(ctx context.Context) (bool, error)
}

// Checking is how files are checked.
type Checking struct {
	AtOnce int           // files at a time
	Count  func(n int64) // hears of bytes that were read, never twice at a time; nil for nobody
}

// Wrong is a file that was finished and is not any more.
type Wrong struct {
	Name string
	Text string // what is the matter, with the name
}

// Wrongs are those of some files of which something is wrong.
func Wrongs(names, texts []string) (all []Wrong) {
	for i, text := range texts {
		if text != "" {
			all = append(all, Wrong{names[i], text})
		}
	}
	return all
}

// Work is an output of which what is finished is kept, under way.
type Work interface {
	// Commit puts all in place in one step, as a [files.Output] does; everything is
	// finished by then. Abort ends the work, and what is finished stays.
	files.Output
	// Folder is what messages call the place where it is kept.
	Folder() string
	// Done returns the records of those of some files that are finished and whose bytes are
	// what the records say, and those of which there is a record and something else.
	Done(ctx context.Context, names []string, c Checking) (done map[string]Record, wrong []Wrong, err error)
	// Begin begins a file of a plan, out of sight.
	Begin(name string, size int64) (Draft, error)
	// Open opens a file that is finished.
	Open(ctx context.Context, name string) (files.File, error)
	// Free is how many bytes can still be written, -1 where that is not known.
	Free() int64
	// Notes are what a user should know of the place.
	Notes() []string
}

// Draft is a file that is being written.
type Draft interface {
	io.WriterAt
	// Finish gives the file its place and keeps a record of it, once all bytes are written.
	// Two runs that finish the same file do no harm.
	Finish(ctx context.Context) (Record, error)
	// Discard removes the file. It is called where Finish is not, or has failed.
	Discard() error
}

// Of is the place that a sink names.
func Of(s files.Sink) (Sink, error) {
	switch to := s.(type) {
	case nil:
		return nil, usage.Errorf("no destination is named")
	case files.Dir:
		return folder{to}, nil
	case Sink:
		return to, nil
	}
	return nil, usage.Errorf("%s keeps nothing of an output before it is whole: `Resume` and `Part` need a folder on a disk, or a store", s)
}
