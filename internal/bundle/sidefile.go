package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/tensorpress/tensorpress/internal/checkpoint"
	"github.com/tensorpress/tensorpress/internal/layout"
	"github.com/tensorpress/tensorpress/internal/plan"
	"github.com/tensorpress/tensorpress/internal/pyjson"
	"github.com/tensorpress/tensorpress/internal/source"
	"github.com/tensorpress/tensorpress/internal/stage"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/safetensors"
)

// SideFile is the SDNQ config as a file beside an output that is one file. The
// header has it too, and wins; programs that read the file alone take it for that
// of whatever weights lie there.
type SideFile struct {
	text    []byte // nil where there is none to be written
	replace bool   // the one that is there is the output's own
	needed  bool   // an application that was named reads no other
	gone    bool   // the one that is there was of the output that is replaced
	note    string
}

// SideFileOf decides whether there is one: it must not come between other weights
// and what describes them.
func SideFileOf(p *plan.Plan, dest string, force bool) (f SideFile, err error) {
	real, err := stage.Real(dest)
	if err != nil {
		return f, err
	}
	old, ordinary, err := oldConfig(filepath.Join(filepath.Dir(real), layout.ConfigFile))
	if err != nil {
		return f, err
	}
	own := force && isOwn(real, old)
	if p.Config == nil {
		return SideFile{gone: own}, nil
	}
	text := []byte(pyjson.DumpSorted(p.Config.Encode()))
	f.needed = p.ConfigFile
	why, err := notBeside(real, old, own, force)
	if !ordinary {
		why = fmt.Sprintf("there is a %s beside it already, which is no ordinary file", layout.ConfigFile)
	}
	switch {
	case err != nil:
		return f, err
	case bytes.Equal(old, text): // whose ever it is, it says what is right
	case why == "":
		f.text, f.replace = text, old != nil
	case f.needed:
		return f, usage.Errorf("%s: the application reads %s beside the weights and no header, and %s: name a folder that holds neither", dest, layout.ConfigFile, why)
	default:
		f.note = fmt.Sprintf("the SDNQ config is in the header of %s alone: %s", dest, why)
		return f, nil
	}
	f.note = fmt.Sprintf("the SDNQ config is in the header of %s, and in %s beside it", dest, layout.ConfigFile)
	return f, nil
}

// NoSideFile is for a sink that does not tell what else is there: the config is in the
// header alone.
func NoSideFile(p *plan.Plan, dest string) (f SideFile, err error) {
	switch {
	case p.Config == nil:
	case p.ConfigFile:
		err = usage.Errorf("%s: the application reads %s beside the weights and no header: name a folder", dest, layout.ConfigFile)
	default:
		f.note = fmt.Sprintf("the SDNQ config is in the header of %s alone", dest)
	}
	return f, err
}

// Crowded is the same where other outputs of the run come to lie beside this one.
func (f SideFile) Crowded(dest string) (SideFile, error) {
	switch {
	case f.text == nil:
		return f, nil
	case f.needed:
		return f, usage.Errorf("%s: the application reads %s beside the weights and no header, and another output of this run lies there too: name a folder for each", dest, layout.ConfigFile)
	}
	return SideFile{gone: f.replace, note: fmt.Sprintf("the SDNQ config is in the header of %s alone: another output of this run lies beside it", dest)}, nil
}

// oldConfig reads what lies there, nil for nothing; ordinary is false where it is
// no file, or none that a config could be.
func oldConfig(path string) (text []byte, ordinary bool, err error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR): // the stage says that there is no folder
		return nil, true, nil
	case err != nil:
		return nil, false, err
	case !info.Mode().IsRegular() || info.Size() > checkpoint.MaxText:
		return []byte{}, false, nil
	}
	text, err = os.ReadFile(path)
	return text, true, err
}

// isOwn reports whether a config says what the header of a file does, and that of no
// file beside it: then it is theirs as well.
func isOwn(real string, config []byte) bool {
	if config == nil || !sameConfig(headerConfig(real), config) {
		return false
	}
	others, err := layout.Neighbours(source.Path(filepath.Dir(real)), filepath.Base(real))
	return err == nil && !slices.ContainsFunc(others, func(name string) bool {
		return sameConfig(headerConfig(filepath.Join(filepath.Dir(real), name)), config)
	})
}

// notBeside says why a config cannot lie beside an output, "" where it can.
func notBeside(real string, old []byte, own, force bool) (string, error) {
	others, err := layout.Neighbours(source.Path(filepath.Dir(real)), filepath.Base(real))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return "", nil
	}
	_, missing := os.Lstat(real)
	switch {
	case err != nil:
		return "", err
	case own:
		return "", nil
	case len(others) > 0:
		return fmt.Sprintf("there are other weights beside it (%s)", others[0]), nil
	case old != nil && (!force || missing != nil):
		return fmt.Sprintf("there is a %s beside it already, which is not its own", layout.ConfigFile), nil
	}
	return "", nil
}

// headerConfig is what the header of a file has, nil for nothing.
func headerConfig(path string) []byte {
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	f, err := safetensors.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, ok := f.Header().Metadata[layout.ConfigKey]
	if !ok {
		return nil
	}
	return []byte(text)
}

func sameConfig(a, b []byte) bool {
	x, errX := pyjson.ParseObject(a)
	y, errY := pyjson.ParseObject(b)
	return errX == nil && errY == nil && pyjson.DumpSorted(x) == pyjson.DumpSorted(y)
}

// Beside is what the stage is told of it.
func (f SideFile) Beside() []stage.Beside {
	if f.text == nil && !f.gone {
		return nil
	}
	return []stage.Beside{{Name: layout.ConfigFile, Replace: f.replace, Needed: f.needed, Gone: f.gone}}
}

// Write writes it, where there is one to be written.
func (f SideFile) Write(s Sink) error {
	if f.text == nil {
		return nil
	}
	return s.WriteFile(layout.ConfigFile, f.text)
}

// Notes say where the config is.
func (f SideFile) Notes() []string {
	if f.note == "" {
		return nil
	}
	return []string{f.note}
}
