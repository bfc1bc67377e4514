#!/bin/bash
# Stage one on two hosts of four GPUs each. The run's folder must be on a file system that both hosts share.
# The job may be killed and queued again (--requeue): the same command goes on from its last checkpoint.
# Two minutes before its time is over SLURM sends SIGTERM: the run then saves, for which torchrun gives it 100 s.
#SBATCH --job-name=audio2head-fomm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120

head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun .venv/bin/torchrun \
    --nnodes "$SLURM_NNODES" --nproc_per_node 4 --shutdown_timeout 100 \
    --rdzv_backend c10d --rdzv_endpoint "$head_node:29500" --rdzv_id "$SLURM_JOB_ID" \
    train_fomm.py --config config/fomm_vox.yaml data.root="$DATA/vox_grid" run.dir="$RUNS/fomm_vox" \
    optim.batch_size=32 # a multiple of the 8 ranks
