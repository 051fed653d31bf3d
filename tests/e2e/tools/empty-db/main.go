// Makes a database of grype without a vulnerability in a folder: none with some can be had from the
// registries of packages, and grype reads nothing without one.
package main

import (
	"log"
	"os"

	v6 "github.com/anchore/grype/grype/db/v6"
	"github.com/spf13/afero"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: empty-db FOLDER")
	}
	if err := write(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func write(folder string) error {
	writer, err := v6.NewWriter(v6.Config{DBDirPath: folder})
	if err != nil {
		return err
	}
	if err := writer.SetDBMetadata(); err != nil {
		return err
	}
	if err := writer.Close(); err != nil {
		return err
	}
	if err := v6.Hydrater()(folder); err != nil {
		return err
	}
	_, err = v6.WriteImportMetadata(afero.NewOsFs(), folder, "empty")
	return err
}
