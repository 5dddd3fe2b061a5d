package stage

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tensorpress/tensorpress/internal/usage"
)

const (
	keptEnd = ".parts" // ends the name of the folder that keeps what is finished of an output
	aside   = ".done"  // and, after that, of its records while it is put in place

	recordEnd = ".done.json" // ends the name of a file's record, which no other file there has
)

// Records is the folder of records, in the one that keeps what is finished of an output.
const Records = ".tensorpress"

// Kept is a stage whose folder has a name that every run for the same destination finds,
// and that stays when a run ends before the output is whole. Several runs may write to it
// at a time: each file is written among the records, out of sight, and gets its name in
// one step. The records stand apart when all is put in place.
type Kept struct {
	*Stage
	work string
	lock io.Closer // nil where others may be at work
}

// KeptPath is the folder that keeps what is finished of a destination.
func KeptPath(dest string) (string, error) {
	path, err := Real(dest)
	if err != nil {
		return "", err
	}
	return keptPath(path), nil
}

func keptPath(path string) string {
	base := filepath.Base(path)
	if len(base) > longest { // a name that is cut says by a hash which it was
		base = fmt.Sprintf("%s~%.4x", strings.ToValidUTF8(base[:longest], ""), sha256.Sum256([]byte(base)))
	}
	return filepath.Join(filepath.Dir(path), "."+base+keptEnd)
}

// DestOf is the destination of which a folder keeps what is finished, "DEST" where its name
// does not tell.
func DestOf(work string) string {
	base, kept := strings.CutSuffix(filepath.Base(work), keptEnd)
	base, hidden := strings.CutPrefix(base, ".")
	if !kept || !hidden || base == "" || strings.Contains(base, "~") {
		return "DEST"
	}
	return filepath.Join(filepath.Dir(work), base)
}

// ReadKept reads a record of what is kept for a destination. The error is an
// [fs.ErrNotExist] where nothing is.
func ReadKept(dest, name string) ([]byte, error) {
	path, err := Real(dest)
	if err != nil {
		return nil, err
	}
	work := keptPath(path)
	text, err := readRecord(filepath.Join(work, Records, name))
	if errors.Is(err, fs.ErrNotExist) && isPlacing(work, work) { // a run was killed as it put all in place
		return readRecord(filepath.Join(work+aside, name))
	}
	return text, err
}

// readRecord reads a record, which is a file: reading a FIFO would wait.
func readRecord(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = usage.Errorf("%s is no file: delete it", path)
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// Unplanned is the folder that is there to keep what is finished of a destination, of which
// no record says that it is being put in place. It is for who finds no plan in it.
func Unplanned(dest string) (work string, ok bool) {
	work, err := KeptPath(dest)
	if err != nil {
		return "", false
	}
	if _, err := os.Lstat(work + aside); err == nil {
		return "", false
	}
	_, err = os.Lstat(work)
	return work, err == nil
}

// Forget removes what a run that was killed has left of a work folder whose output is in
// place, and reports whether there was something.
func Forget(dest string) bool {
	path, err := Real(dest)
	if err != nil {
		return false
	}
	work := keptPath(path)
	if _, err := os.Lstat(work + aside); err != nil {
		return false
	}
	lock, taken := lockAlone(work)
	if taken {
		return false
	}
	if lock != nil {
		defer lock.Close()
	}
	switch _, err := os.Lstat(work); {
	case errors.Is(err, fs.ErrNotExist):
	case isPlacing(work, path): // in exchange for an older output, which is there now
		if _, err := os.Lstat(filepath.Join(work, Records)); err == nil { // or what another has begun since
			break
		}
		if system.removeAll(work) != nil {
			return false
		}
	default:
		return false
	}
	return system.removeAll(work+aside) == nil
}

// placing is the record of an output that is being put in place, by which its folder is
// known from an older one with which it is exchanged.
const placing = "placing.json"

// placed is a file of it.
type placed struct {
	Name    string `json:"name"`
	Bytes   int64  `json:"bytes"`
	Changed int64  `json:"changed"` // in nanoseconds
}

// placingOf describes a folder by one of its files, the first.
func placingOf(folder string) (p placed, err error) {
	err = fs.WalkDir(os.DirFS(folder), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == Records:
			return fs.SkipDir
		case !e.Type().IsRegular():
			return nil
		}
		info, err := e.Info()
		if err == nil {
			p, err = placed{name, info.Size(), info.ModTime().UnixNano()}, fs.SkipAll
		}
		return err
	})
	return p, err
}

// isPlacing reports whether a folder is the output that was being put in place as the
// records aside say.
func isPlacing(work, folder string) bool {
	text, err := readRecord(filepath.Join(work+aside, placing))
	var p placed
	if err != nil || json.Unmarshal(text, &p) != nil || !filepath.IsLocal(filepath.FromSlash(p.Name)) {
		return false
	}
	info, err := os.Lstat(filepath.Join(folder, filepath.FromSlash(p.Name)))
	return err == nil && info.Mode().IsRegular() && info.Size() == p.Bytes && info.ModTime().UnixNano() == p.Changed
}

// OpenKept checks the destination as [Check] does, and opens the folder that keeps what is
// finished, or makes it. Alone means that no other run that is alone may be at work.
func OpenKept(o Output, alone bool) (*Kept, error) {
	t, err := check(o)
	if err != nil {
		return nil, err
	}
	s := &Stage{output: o, target: t, name: hiddenName(t.path), notes: leftovers(filepath.Dir(t.path))}
	k := &Kept{Stage: s, work: keptPath(t.path)}
	if err := k.open(alone); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	s.tmp, s.scratch.dir = k.work, filepath.Join(k.work, Records)
	if t.old == nil {
		return k, nil
	}
	s.mark(t.path, s.name+replaced)
	if err := s.refused(k.work); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

func (k *Kept) open(alone bool) error {
	Forget(k.path)
	err := os.Mkdir(k.work, 0o777)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return k.outside(err)
	}
	if info, err := os.Lstat(k.work); err != nil || !info.IsDir() {
		return errors.Join(err, usage.Errorf("%s is no folder, and %s keeps there what is finished: move it away", k.work, k.output.Dest))
	}
	there := filepath.Join(k.work, Records)
	_, err = os.Lstat(there)
	if errors.Is(err, fs.ErrNotExist) {
		if err = k.begin(there); err != nil {
			return err
		}
	}
	if err != nil || !alone {
		return err
	}
	var taken bool
	if k.lock, taken = lockAlone(k.work); taken {
		return k.busy()
	}
	if _, err := os.Lstat(there); err != nil { // the other has put it in place just now
		return k.busy()
	}
	return nil
}

func (k *Kept) busy() error {
	return usage.Errorf("another run is at work on %s, in %s: wait for its end", k.output.Dest, k.work)
}

// begin makes the folder of records, or moves back those that a run has put aside that was
// killed then.
func (k *Kept) begin(there string) error {
	if _, err := os.Lstat(k.work + aside); err == nil {
		return k.back(there)
	}
	entries, err := os.ReadDir(k.work)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == Records { // another has begun at the same time
			return nil
		}
	}
	if len(entries) > 0 {
		return usage.Errorf("%s holds %s and no records of a run, and %s keeps there what is finished: move it away", k.work, entries[0].Name(), k.output.Dest)
	}
	err = os.Mkdir(there, 0o777)
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	return err
}

// back takes records from aside, where a run that puts the output in place has them.
func (k *Kept) back(there string) error {
	lock, taken := lockAlone(k.work)
	if taken {
		return k.busy()
	}
	if lock != nil {
		defer lock.Close()
	}
	if !isPlacing(k.work, k.work) {
		return usage.Errorf("%s is not what the records in %s are of: move both away", k.work, k.work+aside)
	}
	err := os.Rename(k.work+aside, there)
	if errors.Is(err, fs.ErrNotExist) { // it has ended
		return k.busy()
	}
	return err
}

// Folder is where what is finished is kept.
func (k *Kept) Folder() string { return k.work }

func (k *Kept) record(name string) string { return filepath.Join(k.work, Records, name) }

// escaped is the name of a file of the output as one among the records.
func escaped(name string) string { return url.PathEscape(name) }

// RecordOf is the name of the record of a file.
func RecordOf(name string) string { return escaped(name) + recordEnd }

// ReadRecord reads a record.
func (k *Kept) ReadRecord(name string) ([]byte, error) { return readRecord(k.record(name)) }

// Records are the names of all records.
func (k *Kept) Records() (names []string, err error) {
	entries, err := os.ReadDir(filepath.Join(k.work, Records))
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), recordEnd) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// WriteRecord writes a record, in place of an older one.
func (k *Kept) WriteRecord(name string, text []byte) error {
	d, err := k.create(k.draftPath(name) + young)
	if err != nil {
		return err
	}
	if _, err = d.Write(text); err == nil {
		err = d.Sync()
	}
	if err := errors.Join(err, d.Close()); err != nil {
		return errors.Join(err, os.Remove(d.Name()))
	}
	return k.put(d.Name(), k.record(name))
}

// RemoveRecord removes a record, if it is there.
func (k *Kept) RemoveRecord(name string) error {
	if err := os.Remove(k.record(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// host tells the machines apart that write to one folder.
var host = func() string {
	name, _ := os.Hostname()
	return fmt.Sprintf("%.4x", sha256.Sum256([]byte(name)))
}()

// young ends the name of a draft that has no lock yet.
const young = ".new"

// drafts are files that are being written; the name says where.
var drafts = regexp.MustCompile(`\.([0-9a-f]{8})\.[0-9a-f]{8}\.partial(\.new)?$`)

// forsaken is how long after its last change a draft counts as left behind of which no lock
// tells: it is another machine's, or young.
const forsaken = 24 * time.Hour

func (k *Kept) draftPath(name string) string {
	return k.record(fmt.Sprintf("%s.%s.%08x%s", escaped(name), host, rand.Uint32(), unfinished))
}

func (k *Kept) create(place string) (*os.File, error) {
	f, err := os.OpenFile(place, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o666)
	if errors.Is(err, fs.ErrNotExist) {
		err = k.gone()
	}
	return f, err
}

// gone is the error of a folder that is no longer there.
func (k *Kept) gone() error {
	return usage.Errorf("%s is gone, which kept what is finished of %s: another run has put it in place, or somebody has removed it", k.work, k.output.Dest)
}

// Sweep removes what runs have left of files that they were writing.
func (k *Kept) Sweep() {
	entries, _ := os.ReadDir(filepath.Join(k.work, Records))
	for _, e := range entries {
		path := k.record(e.Name())
		m := drafts.FindStringSubmatch(e.Name())
		if m == nil || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue
		}
		old := time.Since(info.ModTime()) > forsaken
		if old || m[1] == host && m[2] == "" && abandoned(path) {
			os.Remove(path)
		}
	}
}

// Draft is a file of the output that is being written.
type Draft struct {
	*os.File
	kept *Kept
	path string // where it lies
	name string // what it will be called
	mark io.Closer
}

// Draft begins a file of the output.
func (k *Kept) Draft(name string) (*Draft, error) {
	if err := local(name); err != nil {
		return nil, err
	}
	d := &Draft{kept: k, path: k.draftPath(name), name: name}
	var err error
	if d.mark, err = lock(d.path, d.path); err == nil { // by its name, before it is there
		if d.File, err = k.create(d.path); err != nil {
			return nil, errors.Join(err, d.unmark())
		}
		return d, nil
	}
	if d.File, err = k.create(d.path + young); err != nil {
		return nil, err
	}
	if d.mark, err = lock(d.path+young, d.path); err != nil { // there are no locks, and it stays young
		d.path += young
		return d, nil
	}
	if err := os.Rename(d.path+young, d.path); err != nil {
		d.path += young
		return nil, errors.Join(err, d.Discard())
	}
	return d, nil
}

// Put gives the file, which is synced before, its name. An older one of that name is
// replaced.
func (d *Draft) Put(ctx context.Context) error {
	err := heard(ctx, d.File.Sync)
	if err == nil {
		err = d.File.Close()
	}
	if err == nil {
		err = d.kept.put(d.path, d.kept.Path(d.name))
	}
	if err != nil {
		return err
	}
	return d.unmark()
}

func (d *Draft) unmark() error {
	if d.mark == nil {
		return nil
	}
	mark := d.mark
	d.mark = nil
	return mark.Close()
}

// Discard removes the file.
func (d *Draft) Discard() error {
	err := d.File.Close()
	if errors.Is(err, os.ErrClosed) {
		err = nil
	}
	err = errors.Join(err, d.unmark())
	if e := os.Remove(d.path); !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

// put moves a file to its place in the folder.
func (k *Kept) put(from, to string) error {
	err := os.Rename(from, to)
	if info, there := os.Lstat(to); err != nil && there == nil && info.IsDir() {
		err = usage.Errorf("%s is a folder, where a file of %s belongs: move it away", to, k.output.Dest)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if _, there := os.Lstat(from); there != nil {
			return k.gone()
		}
		if err = os.MkdirAll(filepath.Dir(to), 0o777); err == nil {
			err = os.Rename(from, to)
		}
	}
	if err != nil {
		return errors.Join(err, os.Remove(from))
	}
	for dir := filepath.Dir(to); ; dir = filepath.Dir(dir) {
		if err := syncFolder(dir); err != nil || dir == k.work || !strings.HasPrefix(dir, k.work) {
			return err
		}
	}
}

// Clear removes all files of the output and all records.
func (k *Kept) Clear() error {
	names, err := k.Records()
	for _, name := range names {
		err = errors.Join(err, k.RemoveRecord(name))
	}
	entries, listed := os.ReadDir(k.work)
	for _, e := range entries {
		if e.Name() != Records {
			err = errors.Join(err, system.removeAll(filepath.Join(k.work, e.Name())))
		}
	}
	return errors.Join(err, listed)
}

// Strays are the files in the folder that are none of those named.
func (k *Kept) Strays(names []string) (strays []string, err error) {
	known := map[string]bool{}
	for _, name := range names {
		known[name] = true
	}
	err = fs.WalkDir(os.DirFS(k.work), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == Records:
			return fs.SkipDir
		case e.IsDir() || known[name] || slices.Contains(litter, e.Name()) || strings.HasPrefix(e.Name(), ".nfs"):
			return nil
		}
		strays = append(strays, name)
		return nil
	})
	return strays, err
}

// Commit puts the folder in place, without the records. After an error it is what it was.
func (k *Kept) Commit(ctx context.Context) error {
	there := filepath.Join(k.work, Records)
	if err := k.scratch.Close(); err != nil {
		return err
	}
	p, err := placingOf(k.work)
	if err != nil {
		return err
	}
	text, err := json.Marshal(p)
	if err == nil {
		err = k.WriteRecord(placing, text)
	}
	if err != nil {
		return err
	}
	if err := os.Rename(there, k.work+aside); err != nil {
		return k.outside(err)
	}
	reached("records aside")
	if err := k.Stage.Commit(ctx); err != nil {
		if errors.Is(err, fs.ErrExist) { // and nothing is lost
			err = usage.Existsf("%s has come to be there, or become another, while this ran: it stays as it is, and %s keeps what is finished: move one of them away, or give `Force`", k.output.Dest, k.work)
		}
		return errors.Join(err, os.Rename(k.work+aside, there))
	}
	if err := system.removeAll(k.work + aside); err != nil {
		k.notes = append(k.notes, fmt.Sprintf("%s could not be removed: delete it (%v)", k.work+aside, err))
	}
	return nil
}

// Close ends the work on the folder and leaves what it keeps.
func (k *Kept) Close() error {
	err := errors.Join(k.close(), k.unmark())
	if k.lock != nil {
		err = errors.Join(err, k.lock.Close())
		k.lock = nil
	}
	return err
}

// Abort is Close: what is finished stays.
func (k *Kept) Abort() error { return k.Close() }

// keptNote says that a run without what is kept leaves it where it is.
func keptNote(path string) []string {
	work := keptPath(path)
	if info, err := os.Lstat(work); err != nil || !info.IsDir() {
		return nil
	}
	return []string{fmt.Sprintf("%s keeps what is finished of %s by a run with `Resume` or `Part`, and this run does not take it: go on with `Resume`, or delete it", work, path)}
}
