"""A btrfs file system with subvolumes, written into a file from a list of items: no root, no mount, no loop device.

Why not the programs that exist: what a kernel writes is never the same twice, and the mkfs.btrfs of Debian 12 (6.2)
fills a file system from a directory, but makes no subvolumes. Here the bytes follow from the arguments alone, so that
a disk image can be made again and compared.

* One device, sectors of 4 KiB, nodes of 16 KiB, crc32c; metadata twice (DUP), data once; free space tree, no holes,
  skinny metadata: what mkfs.btrfs chooses, with nothing that is younger than Linux 4.9. `btrfs check` finds no fault
  in it. Nothing is compressed.
* Files, links and directories; each item is an inode of its own. All times are the same. Identifiers of subvolumes and
  of the device follow from that of the file system and from paths.
* Content is read file by file and goes straight to its place, where the file will be; the trees are kept in memory and
  written at the end, the super block last. A write that ends early leaves no file system.
* The smallest size is 256 MiB.

From the place where a reader begins, the parts are found so; each module makes one kind of part:

    super block      superblock   how large, where the trees of chunks and of roots are
     ├─ chunk tree   chunks       which bytes of the device are behind which logical addresses
     └─ root tree    filesystem   where all other trees are, and how subvolumes hang in each other
         ├─ fs tree, one for each subvolume: inodes, names, small content       (subvolumes)
         ├─ csum tree: a sum for each sector of content                         (data)
         ├─ extent tree: who uses what of each chunk; free space tree: the rest (filesystem)
         └─ device tree, uuid tree, data relocation tree: small                 (chunks, subvolumes)

Every tree is sorted items in nodes (btree) of one format (format). With reading the files, 57,500 items of 641 MB
take 6.3 seconds of the processor and 225 MB of memory; 1,200 items of 325 MB take 1.1 seconds and 130 MB.
"""

from __future__ import annotations

from mixer.images.btrfs.filesystem import required, write
from mixer.images.btrfs.items import Item, Subvolume

__all__ = ["Item", "Subvolume", "required", "write"]
