package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// unfinished ends the names of files that are being written.
const unfinished = ".unfinished"

// Write replaces path by data: whole or not at all, readable by the owner only, on disk when it returns. After an error the
// old content is there; what a crash leaves beside it, [Sweep] takes away.
func Write(path string, data []byte) error {
	temporary, err := Stage(path, data)
	if err != nil {
		return err
	}
	defer os.Remove(temporary) // gone already after the rename
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// Stage writes data to a file beside path, on disk when it returns, that is the caller's to rename or to remove: for who has
// several to replace. After an error there is none.
func Stage(path string, data []byte) (name string, err error) {
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*"+unfinished) // mode 0600
	if err != nil {
		return "", err
	}
	_, err = temporary.Write(data)
	if err == nil {
		err = temporary.Sync()
	}
	if err = errors.Join(err, temporary.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(temporary.Name()))
	}
	return temporary.Name(), nil
}

// Sweep removes what processes that are gone have begun to write in dir: it may hold keys, and be large. Nobody may be
// writing there.
func Sweep(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, ".*"+unfinished))
	for _, name := range names {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// SyncDir makes renames in dir last.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
