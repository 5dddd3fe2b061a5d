package doctor

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/tensorpress/tensorpress/internal/app"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/report"
)

// look is a diagnosis under way.
type look struct {
	Options
	d *report.Diagnosis
}

// find looks for Python's environments and for applications: first those that are folders,
// which may have environments of their own, then those that are packages.
func (l *look) find() error {
	if err := l.pythons(); err != nil {
		return err
	}
	for _, a := range app.All() {
		if err := l.folders(a); err != nil {
			return err
		}
		for _, path := range a.Environments {
			if filepath.IsAbs(home(path)) {
				l.add(home(path), a.Title)
			}
		}
	}
	for _, a := range app.All() {
		if a.Package != "" {
			l.packages(a)
		}
	}
	return nil
}

// folders adds the folders of an application that lie at its places, or the one that was
// named.
func (l *look) folders(a *app.App) error {
	if path := l.Folders[a.Name]; path != "" {
		if !holds(path, a.Marks) {
			return usage.Errorf("%s is no folder of %s: want one with %s", path, a.Title, a.Marks[0])
		}
		l.folder(a, path)
		return nil
	}
	for _, place := range a.Places {
		if path := home(place); path != "" && holds(path, a.Marks) {
			l.folder(a, path)
		}
	}
	return nil
}

func holds(folder string, files []string) bool {
	return !slices.ContainsFunc(files, func(name string) bool { return !isFile(filepath.Join(folder, name)) })
}

func (l *look) folder(a *app.App, path string) {
	path = real(path)
	if slices.ContainsFunc(l.d.Apps, func(f report.Found) bool { return f.Path == path && f.App == a.Name }) {
		return
	}
	version := ""
	if a.VersionFile != "" {
		version = versionIn(read(filepath.Join(path, a.VersionFile)))
	}
	node := a.Node != "" && isFolder(filepath.Join(path, a.Node))
	l.d.Apps = append(l.d.Apps, report.Found{App: a.Name, Version: version, Path: path, Loads: a.Outputs(version, node)})
	for _, env := range a.Environments {
		if env := home(env); !filepath.IsAbs(env) {
			l.add(filepath.Join(path, env), a.Title)
		}
	}
}

var versionLine = regexp.MustCompile(`(?m)^__version__\s*=\s*["']([^"'\n]+)["']`)

// versionIn returns the version that a Python file sets, "" if none.
func versionIn(text string) string {
	if found := versionLine.FindStringSubmatch(text); found != nil {
		return found[1]
	}
	return ""
}

// packages adds an application that is a package to every environment that has it.
func (l *look) packages(a *app.App) {
	for i := range l.d.Pythons {
		p := &l.d.Pythons[i]
		if version, ok := versionOf(p, a.Package); ok {
			_, has := versionOf(p, a.Needs)
			l.d.Apps = append(l.d.Apps, report.Found{App: a.Name, Version: version, Path: p.Path, Loads: a.Outputs(version, has)})
		}
	}
}

func versionOf(p *report.Python, name string) (string, bool) {
	for _, one := range p.Packages {
		if one.Name == name {
			return one.Version, true
		}
	}
	return "", false
}

// real is an absolute path without links where that can be had.
func real(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if to, err := filepath.EvalSymlinks(path); err == nil {
		return to
	}
	return path
}

// environment returns a variable, and its name.
func environment(name string) (value, from string) { return os.Getenv(name), "$" + name }
