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
  const names = folders.map(({ name }) => name);
  return named(files.flat(), names, dropped.length === 1);
}

/** Reads a file picker; a picked folder is named in its files' relative paths. */
export function readPicker(input) {
  const files = [...input.files].map((file) => {
    return { file, path: file.webkitRelativePath || file.name };
  });
  if (!input.webkitdirectory) return named(files);
  return named(files, [files[0]?.path.split("/")[0] ?? "the folder"], true); // empty: it has no name
}

/** The same files, one source per file. */
export const apart = ({ files }) => files.map((each) => named([each]));

/** Named as the folder that is all there is, else as its files; where none is left, as the folders. */
function named(found, folders = [], isOneFolder = false) {
  const files = found.filter(isMeant);
  const names = files.length > 0 ? files.map(({ file }) => file.name) : folders;
  return { name: (isOneFolder && folders[0]) || listed(names), files };
}

const listed = ([first, ...others]) =>
  others.length > 0 ? `${first} and ${others.length} more` : first;

// .DS_Store and the like come along with every folder, and nobody means them. A hidden file that is
// picked by itself is meant.
const isMeant = ({ path }) => !/\/\./.test(path);

async function readEntry(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ file, path: entry.fullPath.replace(/^\//, "") }];
  }
  const children = await readFolder(entry.createReader());
  return (await Promise.all(children.map(readEntry))).flat();
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
