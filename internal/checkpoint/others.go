package checkpoint

import (
	"cmp"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// bookkeeping are folders in which tools keep records beside a model, ours of an output that
// is not whole among them. They are not copied with a checkpoint.
var bookkeeping = []string{".git", ".cache", ".tensorpress"}

// Others are the files of a folder other than the weights that are read.
type Others struct {
	Files   []string // to be copied as they are, slash paths, ascending
	LeftOut []string // weights that the output does not describe
	Bytes   int64    // total size of LeftOut
	// Clash are weights that loaders would take in place of the output.
	Clash []string
}

// OtherFiles lists the files below a model's folder other than its weights; they are
// copied with the model. Weights that the model does not describe are left out unless
// copyWeights is set; a folder with its own config describes the weights in it. The
// folders .git and .cache, where tools keep records, are skipped. Anything that is
// neither a file nor a folder, or a link that leads out of the folder, is an
// [ErrSource]. A source that is a single file has no other files.
func (c *Checkpoint) OtherFiles(copyWeights bool) (*Others, error) {
	if !c.IsModel() {
		return &Others{}, nil
	}
	return c.listing(copyWeights, &c.Witness).List()
}

func (c *Checkpoint) listing(copyWeights bool, w *Witness) Listing {
	return Listing{
		Tree: c.Tree, Dir: c.Dir, root: c.root(), Skip: c.isWeights, CopyWeights: copyWeights, Witness: w,
		clash: func(name string) bool {
			s, _, ok := parseName(name)
			return ok && s.same(c.set)
		},
	}
}

// OtherWeights lists the weights below a model's folder that are not read. It is for
// outputs to which no other files are copied.
func (c *Checkpoint) OtherWeights() *Others {
	if !c.IsModel() {
		return &Others{}
	}
	found, err := c.listing(false, &Witness{Tree: c.Tree}).List()
	if err != nil { // it concerns files to copy, and none are copied
		return &Others{}
	}
	return &Others{LeftOut: found.LeftOut, Bytes: found.Bytes}
}

// isWeights reports whether name is a shard or the weight index.
func (c *Checkpoint) isWeights(name string) bool {
	_, shard := slices.BinarySearch(c.ShardNames, name)
	return shard || name == c.Index
}

// Listing lists the files below a folder.
type Listing struct {
	Tree        source.Tree
	Dir         string
	Skip        func(name string) bool // files and folders that are not looked at
	Described   []string               // folders whose weights the output describes
	CopyWeights bool
	Witness     *Witness
	root        string // folder that links must not leave, "" for Dir
	clash       func(name string) bool
}

// List walks the folder. Errors are those of [Checkpoint.OtherFiles].
func (l Listing) List() (*Others, error) {
	w := &walk{Listing: l, found: &Others{}}
	if l.Tree.OnDisk() { // stores have no links
		var err error
		if w.bounds, err = boundsOf(cmp.Or(l.root, l.Dir)); err != nil {
			return nil, err
		}
	}
	if err := w.folder(".", false, nil); err != nil {
		return nil, err
	}
	slices.Sort(w.found.Files)
	slices.Sort(w.found.LeftOut)
	return w.found, nil
}

// walk is the state of a listing.
type walk struct {
	Listing
	bounds
	found *Others
}

func (w *walk) path(name string) string { return w.Tree.Join(w.Dir, name) }

// folder lists a folder; above are the folders that hold it.
func (w *walk) folder(name string, described bool, above []fs.FileInfo) error {
	info, err := w.Tree.Stat(w.path(name))
	if err != nil {
		return err
	}
	if slices.ContainsFunc(above, func(other fs.FileInfo) bool { return os.SameFile(info, other) }) {
		return usage.SourceErrorf("%s: is a link to a folder that holds it: remove it", w.path(name))
	}
	entries, err := w.Tree.ReadDir(w.path(name))
	if err != nil {
		return err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	described = described || slices.Contains(w.Described, name) || name != "." && hasAny(names, configFile, PipelineFile)
	for _, e := range entries {
		known := described || describedByName(e.Name(), names)
		if err := w.entry(path.Join(name, e.Name()), e, known, names, append(above, info)); err != nil {
			return err
		}
	}
	return nil
}

func hasAny(names []string, wanted ...string) bool {
	return slices.ContainsFunc(wanted, func(name string) bool { return slices.Contains(names, name) })
}

// entry lists a file, or everything in a folder.
func (w *walk) entry(name string, e fs.DirEntry, described bool, beside []string, above []fs.FileInfo) error {
	isLink := e.Type()&fs.ModeSymlink != 0
	info, err := w.Tree.Stat(w.path(name))
	isFolder := err == nil && info.IsDir()
	switch skip := w.Skip(name); {
	case (isLink || isFolder) && slices.Contains(bookkeeping, e.Name()):
		return nil
	case skip && isLink && isFolder: // its files are copied by another listing
		return w.check(w.path(name))
	case skip:
		return nil
	}
	if !isFolder && !described && isWeightFile(name, beside) && w.leaveOut(name, info) {
		return nil
	}
	if isLink {
		if err := w.check(w.path(name)); err != nil {
			return err
		}
	}
	switch {
	case err != nil:
		return err
	case isFolder:
		return w.folder(name, described, above)
	}
	w.found.Files = append(w.found.Files, name)
	w.Witness.See(w.path(name), info)
	return source.CheckRegular(w.path(name), info)
}

// leaveOut notes weights that the output does not describe, and reports true unless
// they are to be copied nevertheless.
func (w *walk) leaveOut(name string, info fs.FileInfo) bool {
	clash := w.clash != nil && w.clash(name)
	switch {
	case clash && w.CopyWeights:
		w.found.Clash = append(w.found.Clash, name)
		return true
	case w.CopyWeights:
		return false
	}
	w.found.LeftOut = append(w.found.LeftOut, name)
	if info != nil {
		w.found.Bytes += info.Size()
	}
	return true
}

// weightSuffixes are the name endings of weight files, of any program.
var weightSuffixes = []string{
	weightSuffix, ".sft", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".ggml", ".onnx", ".msgpack", ".h5", ".keras", ".ot",
	".tflite", ".mlmodel", ".nemo", ".pdparams", ".pte", ".pb", ".llamafile",
}

// weightParts matches further files that belong to weights: indexes of shards, and the
// external data files of ONNX.
var weightParts = regexp.MustCompile(`(?i)(\.(safetensors|bin|h5|msgpack)(\.[^.]+)?\.index(\.[^.]+)?\.json|\.onnx[._]data(_\d+)?)$`)

// noWeights matches files that have a suffix of weights but hold something else: the
// state of a training run, and voices that transformers looks for.
var noWeights = regexp.MustCompile(`^(training_args\.bin|(optimizer|scheduler)\.(pt|bin)|scaler\.pt|rng_state.*\.pth|spk_dict\.pt)$`)

// isWeightFile reports by its name whether a file holds weights. An .xml does if a .bin
// of the same name lies beside it, since it is OpenVINO's description of that.
func isWeightFile(name string, beside []string) bool {
	base := path.Base(name)
	if noWeights.MatchString(base) {
		return false
	}
	if stem, ok := strings.CutSuffix(base, ".xml"); ok {
		return slices.Contains(beside, stem+".bin")
	}
	return weightParts.MatchString(base) || slices.ContainsFunc(weightSuffixes, func(suffix string) bool { return hasSuffix(base, suffix) })
}

// describedByName reports whether a file is an adapter's weights with their config,
// which has another name than a model's, beside them.
func describedByName(name string, beside []string) bool {
	return strings.HasPrefix(name, "adapter_model.") && slices.Contains(beside, "adapter_config.json")
}
