"""How much is measured: the numbers of a full run, and small ones that only show that it works."""

from dataclasses import dataclass

NETWORK_HIDDEN = (512, 256)


@dataclass(frozen=True)
class GpuNumbers:
    """How much is measured on a GPU.

    Attributes:
        sides_px: Sides of the images.
        batches: Batch sizes.
        held: Batches that an epoch has.
        gemm_sides: Of the square matrix products.
        copy_bytes: Of the large copy.
        tried_s: How long each rate and each shape is tried, in seconds.
        pipeline_batch: Images a step of the DataLoader pipeline.
        pipeline_workers: Its loader processes, at most.
    """

    sides_px: tuple[int, ...] = (64, 224)
    batches: tuple[int, ...] = (64, 512, 4096)
    held: int = 8
    gemm_sides: tuple[int, ...] = (4096, 8192)
    copy_bytes: int = 2**31
    tried_s: float = 2.0
    pipeline_batch: int = 512
    pipeline_workers: int = 16


@dataclass(frozen=True)
class Numbers:
    """How much of everything.

    Attributes:
        epochs: Of the job.
        long_epochs: Of the long job.
        hidden: Units of each hidden layer.
        sides_px: Sides of the images of steps and inference.
        batches: Batch sizes of steps.
        gemm_sides: Of the square matrix products.
        copy_bytes: Of the large copy.
        tried_s: How long each rate and each step is tried, in seconds.
        inferred: Images of inference.
        decoded: Files that are decoded a round, repeated where there are fewer.
        memory: Images and side of each training whose memory is looked at.
        curve_images: N of the cost curves.
        curve_sides_px: S of the cost curves.
        curve_units: Units of the first hidden layer of the cost curves.
        curve_fixed: Images of the curves over S and units.
        gpu: Of a GPU.
        starts: How often each start is timed in a round; the least counts.
    """

    epochs: int = 5
    long_epochs: int = 30
    hidden: tuple[int, ...] = NETWORK_HIDDEN
    sides_px: tuple[int, ...] = (64, 224)
    batches: tuple[int, ...] = (64, 512)
    gemm_sides: tuple[int, ...] = (1024, 2048, 4096)
    copy_bytes: int = 2**28
    tried_s: float = 2.0
    inferred: int = 4096
    decoded: int = 412
    memory: tuple[tuple[int, int], ...] = ((2000, 64), (8000, 64), (500, 224))
    curve_images: tuple[int, ...] = (1000, 3000, 10_000, 30_000)
    curve_sides_px: tuple[int, ...] = (28, 64, 128, 224, 512)
    curve_units: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    curve_fixed: int = 1024
    gpu: GpuNumbers = GpuNumbers()
    starts: int = 3


FULL = Numbers()
QUICK = Numbers(
    epochs=1,
    long_epochs=2,
    hidden=(8, 4),
    sides_px=(8, 12),
    batches=(4,),
    gemm_sides=(64,),
    copy_bytes=2**16,
    tried_s=0.01,
    inferred=300,
    decoded=8,
    memory=((40, 16), (80, 16)),
    curve_images=(40, 80),
    curve_sides_px=(8, 16),
    curve_units=(8, 16),
    curve_fixed=32,
    gpu=GpuNumbers((8, 12), (4, 8), 2, (64,), 2**16, 0.01, 8, 1),
    starts=1,
)
