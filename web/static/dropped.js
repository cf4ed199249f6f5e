/** What was dropped or picked, as sources: a name and its files with their paths. */

/**
 * Reads a drop, with the folders in it. Must be called while the drop event is handled.
 * @param {DataTransfer} transfer
 * @returns {Promise<{name: string, files: {file: File, path: string}[]}>} one source
 */
export async function readDrop(transfer) {
  // Items are void once the event is over. Some have no entry, such as images from other pages.
  const items = [...transfer.items].filter(({ kind }) => kind === "file");
  const dropped = items.map((item) => [item.webkitGetAsEntry(), item.getAsFile()]);
  const files = await Promise.all(
    dropped.map(([entry, file]) => (entry ? readEntry(entry) : [{ file, path: file.name }])),
  );
  const folders = dropped.map(([entry]) => entry).filter((entry) => entry?.isDirectory);
  const onlyFolder = dropped.length === 1 ? folders[0] : null;
  return named(files.flat(), onlyFolder?.name);
}

/** Reads a file picker; a picked folder is named in its files' relative paths. */
export function readPicker(input) {
  const files = [...input.files].map((file) => {
    return { file, path: file.webkitRelativePath || file.name };
  });
  const folder = input.webkitdirectory ? files[0]?.path.split("/")[0] : null;
  return named(files.filter(isVisible), folder);
}

/** The same files, each as a source of its own. */
export const apart = ({ files }) => files.map((each) => named([each]));

function named(files, folder) {
  const [first, ...others] = files;
  const more = others.length > 0 ? ` and ${others.length} more` : "";
  return { name: folder ?? `${first?.file.name}${more}`, files };
}

// .DS_Store and the like come along with every folder, and nobody means them.
const isVisible = ({ file }) => !file.name.startsWith(".");

async function readEntry(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ file, path: entry.fullPath.replace(/^\//, "") }];
  }
  const children = await readFolder(entry.createReader());
  return (await Promise.all(children.map(readEntry))).flat().filter(isVisible);
}

async function readFolder(reader) {
  const children = [];
  for (;;) {
    // A reader gives some entries at a time, and none at the end.
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return children;
    children.push(...some);
  }
}
